"""Run the whole test suite in an environment of its own, one per row of the table in docs/platforms.md.

    python benchmarks/platforms.py --python 3.12
    python benchmarks/platforms.py --python 3.10 --dependencies lowest --without-numba
    python benchmarks/platforms.py --python 3.11 --graph own --pip-flags="--find-links DIR --constraint FILE"

The environment is made by uv (https://docs.astral.sh/uv), which can install the lowest version of every dependency that
pyproject.toml allows, and is deleted afterwards. The tests run on a copy of the committed files. A row of the CSV file
is replaced by a new run of the same platform; the exit code is that of the tests.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "platforms.csv"
PACKAGES = ("dgl", "torch", "numpy", "pandas", "click", "pydantic")
COLUMNS = ("system", "python", "dependencies", "graph", *PACKAGES, "numba", "passed", "failed", "skipped", "seconds")

# What the environment says of itself: versions, and what carries the graph there.
PROBE = """
import json, platform, sys
from importlib import metadata
from mbgraph._dgl import graph_carrier
carrier = graph_carrier()
found = {"python": platform.python_version(), "graph": carrier.name, "reason": carrier.reason}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        found[name] = "none"
print(json.dumps(found))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="a version or the path of an interpreter")
    parser.add_argument("--dependencies", choices=("newest", "lowest"), default="newest")
    parser.add_argument("--without-numba", action="store_true")
    parser.add_argument("--graph", choices=("auto", "dgl", "own"), default="auto", help="what carries the graph")
    parser.add_argument("--pip-flags", default="", help="options for `uv pip install`")
    parser.add_argument("--pytest-flags", default="", help='options for pytest, such as -m "not slow"')
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mbgraph-platform-") as scratch:
        python = install(options, Path(scratch) / "venv")
        row, status = measure(options, python, Path(scratch))
    save(options.out, row)
    print(json.dumps(row))
    sys.exit(status)


def install(options: argparse.Namespace, folder: Path) -> Path:
    """Make the environment and return its interpreter. The package itself is not installed: tests use the source."""
    uv = shutil.which("uv") or sys.exit("error: uv is not installed; run: pip install uv")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([uv, "venv", "--quiet", "--python", options.python, str(folder)], check=True)
    extras = ["--extra", "test"] + ([] if options.without_numba else ["--extra", "fast"])
    words = ["--requirements", "pyproject.toml", *extras, "--only-binary", ":all:"]
    words += ["--resolution", "lowest-direct"] if options.dependencies == "lowest" else []
    words += ["--python", str(python), *shlex.split(options.pip_flags)]
    subprocess.run([uv, "pip", "install", "--quiet", *words], cwd=ROOT, check=True)
    return python


def measure(options: argparse.Namespace, python: Path, scratch: Path) -> tuple[dict[str, object], int]:
    """Run the tests and return the row and pytest's exit code."""
    source, report = scratch / "source", scratch / "report.xml"
    archive = scratch / "source.tar"
    subprocess.run(["git", "archive", "--output", str(archive), "HEAD"], cwd=ROOT, check=True)
    with tarfile.open(archive) as packed:
        packed.extractall(source)
    environment = {**os.environ, "PYTHONPATH": str(source), "MBGRAPH_GRAPH": options.graph, "PYTHONUTF8": "1"}
    probe = [str(python), "-c", PROBE, *PACKAGES, "numba"]
    found = json.loads(subprocess.run(probe, env=environment, check=True, capture_output=True, text=True).stdout)
    if options.graph == "auto" and found["dgl"] != "none" and found["graph"] != "dgl":
        sys.exit(f"error: DGL is installed, but {found['reason']}")
    start = time.monotonic()
    tests = [str(python), "-m", "pytest", "-q", f"--junitxml={report}", *shlex.split(options.pytest_flags)]
    status = subprocess.run(tests, cwd=source, env=environment, check=False).returncode
    if not report.exists():
        sys.exit(f"error: pytest ended with {status} and without a report")
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    row = {
        "system": f"{platform.system()} {platform.machine()}",
        "dependencies": options.dependencies,
        **found,
        "passed": count["tests"] - failed - count["skipped"],
        "failed": failed,
        "skipped": count["skipped"],
        "seconds": round(time.monotonic() - start),
    }
    return {name: row[name] for name in COLUMNS}, status


def save(path: Path, row: dict[str, object]) -> None:
    """Put a row into the file, in the place of an earlier one of the same platform."""
    rows = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))

    def kind(entry: dict[str, object]) -> tuple[object, ...]:
        minor = tuple(int(part) for part in str(entry["python"]).split(".")[:2])
        return (entry["system"], minor, entry["dependencies"], entry["graph"], entry["numba"] == "none")

    rows = sorted([entry for entry in rows if kind(entry) != kind(row)] + [row], key=kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
