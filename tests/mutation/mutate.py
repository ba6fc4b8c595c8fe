"""Rounds of mutation testing: ``make mutate FILES="mbgraph/data/splits.py" ROUND="--sample 100"``; see docs/testing.md.

Everything happens in a temporary copy of the repository. The tests of a file run once per wrong change, each time in a
fork of this process, which has loaded the slow ones of their libraries but nothing of the project. Libraries for
mutation testing leave decorated functions alone, all compiled loops among them, or start Python anew for every change.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import Phase, settings
from mutants import Mutant, mutants_of

ROOT = Path(__file__).resolve().parents[2]
NOTES = Path(__file__).with_name("equivalent.csv")
COLUMNS = ("file", "line", "kind", "before", "after", "outcome", "seconds", "digest", "start", "text", "tests")
SLOW_IMPORTS = ("pandas", "pyarrow", "scipy.stats", "torch", "numba", "rich.table", "hypothesis.strategies")


class _Quick:
    """Hypothesis draws the same examples every time, and does not look for simpler ones once a test has failed."""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutation", derandomize=True, database=None, phases=phases)
        settings.load_profile("mutation")


def tests_of(file: str, root: Path) -> list[str]:
    """Return the mirrored test file, ``tests/data/test_splits.py`` of ``mbgraph/data/splits.py``, or its folder."""
    path = Path("tests", *Path(file).parts[1:])
    mirrored = path.with_name(f"test_{path.name}")
    found = next((one for one in (mirrored, path.parent) if (root / one).exists()), None)
    if found is None:
        raise click.UsageError(f"{file} has neither {mirrored} nor {path.parent}; name its tests with --tests")
    return [str(found)]


def copy_tree(root: Path, to: Path) -> Path:
    """Copy the repository without what is hidden, made or recorded; return the copy."""

    def ignore(_: str, names: list[str]) -> set[str]:
        made = {"build", "dist", "runs", "__pycache__"}
        return {name for name in names if name[0] == "." or name in made or name.endswith(".egg-info")}

    return Path(shutil.copytree(root, to / "copy", ignore=ignore))


def run_tests(copy: Path, tests: Sequence[str], limit: float, *, mutant: bool) -> tuple[str, float]:
    """Run tests in a fork: "passed", "failed" or "timeout", and seconds. Their output is in ``copy``'s neighbour."""
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()  # a group of its own, so that what a test starts ends with it
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            log = os.open(copy.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(copy)
            os.environ.pop("MBGRAPH_DATA", None)  # tests on real datasets take long and prove little about a line
            sys.path[:2] = [str(copy)]
            sys.dont_write_bytecode = mutant
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], [_Quick()]))
            if not mutant:
                loaded = [name for name in SLOW_IMPORTS if name in sys.modules]
                (copy.parent / "imports.json").write_text(json.dumps(loaded), encoding="utf-8")
        finally:
            os._exit(code)
    status = None
    try:
        while status is None and time.monotonic() - start < limit:
            time.sleep(0.02)
            done, found = os.waitpid(child, os.WNOHANG)
            status = found if done else None
    finally:
        if status is None:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    outcome = "timeout" if status is None else "failed" if status else "passed"
    return outcome, time.monotonic() - start


def run_mutant(copy: Path, file: str, mutant: Mutant, tests: Sequence[str], limit: float) -> tuple[str, float]:
    """Run tests against one wrong change, and take it back: "caught", "timeout" or "survived", and seconds."""
    path, number = copy / file, mutant.start
    original, before = path.read_bytes(), path.stat()
    caches, compiled = copy.parent / "numba", re.search(rb"^\s*(from|import) numba", original, re.MULTILINE)
    try:
        path.write_bytes(mutant.apply(original))
        # a time of its own: Python and numba know by it that what they compiled before is not this
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9 * (1 + number)))
        if compiled:  # a compiled function may hold another file's code, which its cache does not see
            caches = Path(tempfile.mkdtemp(dir=copy.parent))
        _numba_cache(caches)
        outcome, seconds = run_tests(copy, tests, limit, mutant=True)
    finally:
        path.write_bytes(original)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        if compiled:
            shutil.rmtree(caches, ignore_errors=True)
    return {"passed": "survived", "failed": "caught"}.get(outcome, outcome), seconds


def _numba_cache(folder: Path) -> None:
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(folder)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a round, the last one of every mutant; none if there is no file."""
    if not path.exists():
        return []
    whole, newline, _ = path.read_text(encoding="utf-8").rpartition("\n")  # a killed round may have torn the last row
    return list({_key(row): row for row in csv.DictReader((whole + newline).splitlines())}.values())


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("file", "digest", "start", "text"))


def noted(rows: Iterable[dict[str, Any]], path: Path = NOTES) -> list[dict[str, Any]]:
    """Return rows with the survivors that are known to change nothing as "equivalent", and why."""
    with path.open(encoding="utf-8", newline="") as file:
        notes = {(note["file"], note["before"], note["after"]): note["why"] for note in csv.DictReader(file)}
    made = []
    for row in rows:
        why = notes.get((row["file"], row["before"], row["after"]), "") if row["outcome"] == "survived" else ""
        made.append({**row, "outcome": "equivalent" if why else row["outcome"], "why": why})
    return made


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per file: how many wrong changes were tried, caught, known to change nothing, not seen."""
    made = []
    for file in dict.fromkeys(row["file"] for row in rows):
        outcomes = [row["outcome"] for row in rows if row["file"] == file]
        equivalent, survived = (outcomes.count(name) for name in ("equivalent", "survived"))
        tried = len(outcomes)
        share = 100 * (tried - equivalent - survived) / max(tried - equivalent, 1)
        tests = " ".join(dict.fromkeys(word for row in rows if row["file"] == file for word in row["tests"].split()))
        counts = {"tried": tried, "caught": tried - equivalent - survived, "equivalent": equivalent}
        made.append({"file": file, **counts, "survived": survived, "percent caught": f"{share:.1f}", "tests": tests})
    return made


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, by a temporary name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def choose(files: Sequence[str], sample: int | None, seed: int) -> list[tuple[str, str, Mutant]]:
    """Return (file, digest, mutant): all of them, or a random sample over all files, in the order of the files."""
    found = []
    for file in files:
        source = (ROOT / file).read_bytes()
        found += [(file, hashlib.sha256(source).hexdigest()[:12], mutant) for mutant in mutants_of(source)]
    if sample is None or sample >= len(found):
        return found
    return [found[place] for place in sorted(random.Random(seed).sample(range(len(found)), sample))]


@click.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--tests", multiple=True, help="More tests, run after the file's own, for all files; repeatable.")
@click.option("--sample", type=click.IntRange(min=1), help="Try that many changes, drawn from all files.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
@click.option("--limit", type=float, help="Seconds per change.  [default: 10 and four times the unchanged tests]")
@click.option("--again", is_flag=True, help="Try survivors anew, those not known to change nothing: tests were added.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/mutation.csv"), show_default=True)
@click.option("--summary", "table", type=click.Path(path_type=Path), help="CSV file for one row per file.")
@click.option("--json", "as_json", is_flag=True, help="Print summary and survivors as JSON.")
def main(
    files: tuple[str, ...],
    tests: tuple[str, ...],
    sample: int | None,
    seed: int,
    limit: float | None,
    again: bool,
    out: Path,
    table: Path | None,
    as_json: bool,
) -> None:
    """Change FILES in small wrong ways, one at a time, and list the changes that no test notices.

    Results are kept in --out as they come: a round that was stopped goes on where it was.
    """
    files = tuple(os.path.relpath(Path(file).resolve(), ROOT) for file in files)
    for file in files:
        if not file.startswith("mbgraph/") or not (ROOT / file).is_file():
            raise click.UsageError(f"{file} is no file of the package; name one such as mbgraph/data/splits.py")
    if not hasattr(os, "fork"):
        raise click.ClickException("this system has no fork; use Linux or macOS")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the copy goes, as it does after Ctrl-C
    chosen = choose(files, sample, seed)
    suites = {file: [*dict.fromkeys([*tests_of(file, ROOT), *tests])] for file in files}
    known = read_results(out)
    stale = {_key(row) for row in noted(known) if again and row["outcome"] == "survived"}
    done = {_key(row): row for row in known if _key(row) not in stale}
    left = [(*one, _key(_row(*one))) for one in chosen if _key(_row(*one)) not in done]
    click.echo(f"{len(chosen)} changes of {len(files)} files, {len(left)} to try", err=True)
    if left:
        with tempfile.TemporaryDirectory(prefix="mbgraph-mutation-") as folder:
            for row in _round(copy_tree(ROOT, Path(folder)), left, suites, limit, out):
                done[_key(row)] = row
    rows = noted(done[_key(_row(*one))] for one in chosen)
    made, survivors = summary(rows), [row for row in rows if row["outcome"] == "survived"]
    if table is not None:
        write_table(table, made)
    if as_json:
        click.echo(json.dumps({"summary": made, "survivors": survivors}, indent=2))
        return
    for row in survivors:
        click.echo(f"{row['file']}:{row['line']}: {row['kind']}\n  - {row['before']}\n  + {row['after']}")
    for row in made:
        counts = ", ".join(f"{row[name]} {name}" for name in ("tried", "caught", "equivalent", "survived"))
        click.echo(f"{row['file']}: {row['percent caught']} % caught ({counts})")


def _row(file: str, digest: str, mutant: Mutant) -> dict[str, Any]:
    names = ("line", "kind", "before", "after", "start", "text")
    return {"file": file, "digest": digest, **{name: getattr(mutant, name) for name in names}}


def _round(
    copy: Path, left: Sequence[tuple[Any, ...]], suites: dict[str, list[str]], limit: float | None, out: Path
) -> Iterable[dict[str, Any]]:
    """Run what is left, append each row to ``out`` and yield it."""
    if rows := read_results(out):
        write_table(out, rows)  # without the torn row of a round that was killed
    out.parent.mkdir(parents=True, exist_ok=True)
    limits: dict[str, float] = {}
    with out.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not rows:
            file.truncate(0)
            writer.writeheader()
        for number, (name, digest, mutant, _) in enumerate(left, 1):
            suite = suites[name]
            if name not in limits:
                _numba_cache(copy.parent / "numba")
                run_tests(copy, suite, 3600, mutant=False)  # compiles what is kept
                for slow in json.loads((copy.parent / "imports.json").read_text(encoding="utf-8")):
                    importlib.import_module(slow)
                outcome, seconds = run_tests(copy, suite, 3600, mutant=False)
                if outcome != "passed":
                    text = (copy.parent / "output.txt").read_text(encoding="utf-8")
                    raise click.ClickException(f"{' '.join(suite)} fails on the unchanged {name}:\n{text}")
                limits[name] = limit or 10 + 4 * seconds
                click.echo(f"{name}: its tests take {seconds:.1f} s", err=True)
            outcome, seconds = run_mutant(copy, name, mutant, suite, limits[name])
            row = {**_row(name, digest, mutant), "outcome": outcome, "seconds": f"{seconds:.1f}"}
            row["tests"] = " ".join(suite)
            writer.writerow(row)
            file.flush()
            click.echo(f"{number}/{len(left)} {name}:{mutant.line} {outcome} {seconds:.1f} s", err=True)
            yield row


if __name__ == "__main__":
    main()
