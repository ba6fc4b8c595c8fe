"""The file behind docs/platforms.md: one row per platform, replaced by a new run of it."""

import csv
import importlib.util
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def platforms():
    spec = importlib.util.spec_from_file_location("platforms_script", REPOSITORY / "benchmarks" / "platforms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(platforms, **changes):
    values = dict.fromkeys(platforms.COLUMNS, "1") | {"system": "Linux x86_64", "python": "3.9.1", "numba": "0.60"}
    return values | changes


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_new_run_replaces_the_row_of_its_platform_and_no_other(platforms, tmp_path):
    path = tmp_path / "results" / "platforms.csv"
    for changes in (
        {"python": "3.13.0"},
        {"python": "3.9.1", "passed": "7"},
        {"python": "3.9.1", "numba": "none"},
        {"python": "3.9.1", "graph": "mbgraph"},
        {"python": "3.9.1", "dependencies": "lowest"},
        {"python": "3.9.1", "system": "Darwin arm64"},
    ):
        platforms.save(path, row(platforms, **changes))
    assert len(read(path)) == 6
    platforms.save(path, row(platforms, python="3.9.8", passed="8", numba="0.61"))
    rows = read(path)
    assert len(rows) == 6
    assert [entry["passed"] for entry in rows if entry["python"].startswith("3.9")].count("7") == 0
    assert [entry["python"] for entry in rows if entry["passed"] == "8"] == ["3.9.8"]
    assert rows[-1]["python"] == "3.13.0", "3.13 comes after 3.9"


def test_the_page_names_every_python_that_the_package_allows():
    page = (REPOSITORY / "docs" / "platforms.md").read_text(encoding="utf-8")
    settings = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (low, high) = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', settings).groups()
    named = {f"3.{minor}" for minor in range(int(low), int(high))}
    assert named == set(re.findall(r"Python :: (3\.\d+)", settings))
    tried = {
        ".".join(entry["python"].split(".")[:2]) for entry in read(REPOSITORY / "benchmarks/results/platforms.csv")
    }
    assert tried <= named
    for version in named:
        assert version in page


def test_no_row_of_the_table_has_a_failure():
    assert {entry["failed"] for entry in read(REPOSITORY / "benchmarks/results/platforms.csv")} == {"0"}
