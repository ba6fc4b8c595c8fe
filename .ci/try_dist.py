"""Try the sdist and the wheel as a user meets them: installed into an empty environment, used from another folder.

python .ci/try_dist.py dist
python .ci/try_dist.py dist --pip-flags="--find-links /path/to/wheels"
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

# What a checkout has and an installed package or an unpacked sdist cannot do without.
IN_SDIST = (
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "Makefile",
    "README.md",
    "benchmarks/results/demo.csv",
    "benchmarks/speed/plain.py",
    "datasets/taobao.toml",
    "docs/start.md",
    "mbgraph/py.typed",
    "setup.py",
    "tests/conftest.py",
    "tests/cli/test_fit.py",
)
IN_WHEEL = (
    "mbgraph/py.typed",
    "mbgraph/datasets/taobao.toml",
    "mbgraph/benchmarks/speed/plain.py",
    "mbgraph/benchmarks/table3.toml",
)
NOT_IN_WHEEL = ("tests/", "docs/", "benchmarks/", "datasets/", "setup.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where one sdist and one wheel lie")
    parser.add_argument("--pip-flags", default="", help="options for every pip install")
    options = parser.parse_args()
    (sdist,), (wheel,) = options.folder.glob("*.tar.gz"), options.folder.glob("*.whl")
    check_contents(sdist, wheel)
    for artifact in (wheel, sdist):
        with tempfile.TemporaryDirectory(prefix="mbgraph-dist-") as scratch:
            attempt(artifact.resolve(), Path(scratch), shlex.split(options.pip_flags))
        print(f"{artifact.name}: installs and works", flush=True)


def check_contents(sdist: Path, wheel: Path) -> None:
    """Compare what the archives hold with the lists above."""
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        installed = set(archive.namelist())
    missing = [f"{sdist.name}: {name}" for name in IN_SDIST if name not in held]
    missing += [f"{wheel.name}: {name}" for name in IN_WHEEL if name not in installed]
    surplus = [f"{wheel.name}: {name}" for name in installed if name.startswith(NOT_IN_WHEEL)]
    surplus += [f"{sdist.name}: {name}" for name in held if "__pycache__" in name]
    if missing or surplus:
        sys.exit("\n".join(["missing:", *missing, "should not be there:", *surplus]))


def attempt(artifact: Path, scratch: Path, flags: list[str]) -> None:
    """Install into an environment of its own and use the package from a folder without the source tree."""
    venv.create(scratch / "venv", with_pip=True)
    binaries = scratch / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python, command = binaries / "python", binaries / "mbgraph"
    work = scratch / "work"
    work.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MBGRAPH_DATA")}

    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *flags, artifact]
    subprocess.run([*map(str, install)], env=environment, check=True)  # flags may name files of this folder

    def run(*words: str | Path) -> None:
        subprocess.run([*map(str, words)], cwd=work, env=environment, check=True)

    run(python, "-m", "pip", "check")
    where = "import mbgraph, sys; sys.exit('site-packages' not in mbgraph.__file__)"
    run(python, "-c", where)
    run(command, "doctor")
    run(command, "fit", "--epochs", "1", "--quiet", "--out", "run")
    run(command, "evaluate", "run")
    run(command, "data", "ls")


if __name__ == "__main__":
    main()
