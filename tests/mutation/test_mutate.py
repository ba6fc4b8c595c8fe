"""Rounds on a package of three functions: what is caught, kept, resumed, noted and refused; the tree stays as it is."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutate import choose

SCRIPTS = Path(__file__).parent
SOURCE = """\
def add(a, b):
    return a + b


def drain(items):
    while items:
        items.pop()
    return items


def half(n):
    return n / 2
"""
TESTS = """\
from mbgraph.data.sums import add, drain, half


def test_sums():
    assert add(2, 3) == 5
    assert drain([1]) == []
    half(3)
"""
FILE = "mbgraph/data/sums.py"


class Repository:
    """A package of one file, its tests, and the scripts."""

    def __init__(self, root):
        self.root = root
        self.write("mbgraph/__init__.py", "")
        self.write("mbgraph/data/sums.py", SOURCE)
        self.write("tests/data/test_sums.py", TESTS)
        self.write("pyproject.toml", '[tool.pytest.ini_options]\naddopts = "--import-mode=importlib"\n')
        (root / "tests" / "mutation").mkdir()
        for name in ("mutate.py", "mutants.py"):
            shutil.copy(SCRIPTS / name, root / "tests" / "mutation" / name)
        self.write("tests/mutation/equivalent.csv", "file,before,after,why\n")

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def content(self):
        """Return a digest per file, without what a round makes."""
        files = [path for path in self.root.rglob("*") if path.is_file() and path.parent.name != "build"]
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if "mutation" not in path.parts}

    def run(self, *arguments, code=0):
        done = subprocess.run(
            [sys.executable, "tests/mutation/mutate.py", *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def rows(self):
        with (self.root / "build" / "mutation.csv").open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


@pytest.mark.slow
def test_a_round_from_beginning_to_end(repository):
    before = repository.content()
    done = repository.run(FILE, "--limit", "1.5", "--summary", "build/table.csv")
    assert repository.content() == before
    outcomes = {(row["line"], row["after"]): row["outcome"] for row in repository.rows()}
    assert outcomes == {
        ("2", "return (a - b)"): "caught",
        ("2", "return None"): "caught",
        ("6", "while not items:"): "caught",
        ("7", "pass"): "timeout",
        ("8", "return None"): "caught",
        ("12", "return None"): "survived",
        ("12", "return (n * 2)"): "survived",
        ("12", "return n / 3"): "survived",
        ("12", "return n / 1"): "survived",
    }
    assert f"{FILE}:12: operator\n  - return n / 2\n  + return (n * 2)\n" in done.stdout
    assert done.stdout.endswith(f"{FILE}: 55.6 % caught (9 tried, 5 caught, 0 equivalent, 4 survived)\n")
    with (repository.root / "build" / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["file"], row["percent caught"], row["tests"]) == (FILE, "55.6", "tests/data/test_sums.py")

    # another round has nothing to do; one that was killed while it wrote goes on where it was
    out = repository.root / "build" / "mutation.csv"
    out.write_text(out.read_text()[:-9])
    assert "9 changes of 1 files, 1 to try" in repository.run(FILE).stderr
    assert len(repository.rows()) == 9

    # what changes nothing is noted with a reason
    note = f'{FILE},return n / 2,return (n * 2),"never asked for"\n'
    repository.write("tests/mutation/equivalent.csv", f"file,before,after,why\n{note}x.py,a,b,c\n")
    found = json.loads(repository.run(FILE, "--json").stdout)
    assert [row["after"] for row in found["survivors"]] == ["return None", "return n / 3", "return n / 1"]
    assert (found["summary"][0]["percent caught"], found["summary"][0]["equivalent"]) == ("62.5", 1)

    # after tests were added, survivors are tried again
    repository.write(
        "tests/data/test_halves.py", "from mbgraph.data.sums import half\ndef test(): assert half(3) == 1.5"
    )
    done = repository.run(FILE, "--again", "--tests", "tests/data/test_halves.py")
    assert "3 to try" in done.stderr
    assert done.stdout == f"{FILE}: 100.0 % caught (9 tried, 8 caught, 1 equivalent, 0 survived)\n"


def test_samples_are_drawn_by_the_seed_from_all_files():
    files = ["mbgraph/data/splits.py", "mbgraph/evaluation/metrics.py"]
    everything = choose(files, None, 0)
    one, same, other = (choose(files, 40, seed) for seed in (1, 1, 2))
    assert len(one) == 40
    assert one == same != other
    assert {file for file, _, _ in one} == set(files)
    assert [change for change in everything if change in one] == one  # in the order of the files
    assert choose(files, 10**6, 0) == everything


def test_what_cannot_be_tried_is_one_line(repository):
    assert "nothing.py is no file of the package; name one such as" in repository.run("nothing.py", code=2).stderr
    repository.write("mbgraph/other/alone.py", "x = 1\n")
    error = repository.run("mbgraph/other/alone.py", code=2).stderr
    assert "has neither tests/other/test_alone.py nor tests/other; name its tests with --tests" in error
    repository.write("tests/data/test_sums.py", TESTS.replace("== 5", "== 6"))
    error = repository.run(FILE, code=1).stderr
    assert f"Error: tests/data/test_sums.py fails on the unchanged {FILE}:" in error
    assert "assert 5 == 6" in error


@pytest.mark.slow
def test_compiled_functions_that_hold_the_change_are_compiled_anew(repository):
    pytest.importorskip("numba")
    repository.write(FILE, "from numba import njit\n@njit\ndef add(a, b):\n    return a + b\n")
    twice = "@njit(cache=True)\ndef twice(a, b):\n    return 2 * add(a, b)\n"
    repository.write("mbgraph/data/twice.py", f"from numba import njit\nfrom mbgraph.data.sums import add\n{twice}")
    test = "from mbgraph.data.twice import twice\ndef test(): assert twice(2, 3) == 10\n"
    repository.write("tests/data/test_sums.py", test)
    before = repository.content()
    repository.run(FILE)
    assert repository.content() == before  # no cache beside the source
    assert [row["outcome"] for row in repository.rows()] == ["caught", "caught"]
