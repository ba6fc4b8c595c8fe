"""What the machine is: processor, memory, versions of packages. No torch is needed to ask."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

__all__ = ["MOST_THREADS", "available_memory_mb", "cpu_name", "package_version", "package_versions", "peak_memory_mb"]

MOST_THREADS = 1024
"""CPU threads that can be asked for: far more than any processor has, and few enough that a system starts them."""

_PROC = Path("/proc")


def cpu_name() -> str:
    """Return the processor's name as the system tells it."""
    names = [line for line in _lines(_PROC / "cpuinfo") if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def peak_memory_mb() -> float:
    """Return the largest resident set of this process so far in MiB; 0 where the platform does not tell."""
    for line in _lines(_PROC / "self" / "status"):  # getrusage would also count the process that started this one
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:  # Windows has its own count
        import psutil

        return float(getattr(psutil.Process().memory_info(), "peak_wset", 0)) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def available_memory_mb() -> float:
    """Return the memory that this machine can still give, in MiB."""
    import psutil

    return float(psutil.virtual_memory().available) / 2**20


def package_version(package: str) -> str | None:
    """Return the version of an installed package, None where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return versions by name, ``not installed`` where there is none."""
    return {package: package_version(package) or "not installed" for package in packages}


def _lines(path: Path) -> list[str]:
    """Return the lines of a file of the kernel, none on systems without it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
