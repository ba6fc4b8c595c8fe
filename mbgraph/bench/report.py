"""From run directories to a CSV file, and from a CSV file to the table of a page.

A number in the documentation has a command and a committed CSV behind it. ``collect`` makes the CSV from run
directories; a page holds ``<!-- table: FILE.csv | COLUMN | ... -->`` and ``<!-- /table -->``, and ``render_page`` fills
what is between. Between ``<!-- options: SECTION -->`` and ``<!-- /options -->`` it puts the options of a section, read
off its fields, and between ``<!-- study: FILE.md -->`` and ``<!-- /study -->`` the tables and verdicts of a study.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mbgraph.errors import DataError
from mbgraph.evaluation.metrics import headline_metrics
from mbgraph.files import atomic_write
from mbgraph.reference import option_table
from mbgraph.run import Run

__all__ = ["add_rows", "collect", "public_words", "read_rows", "render_page", "render_table", "write_rows"]

_BLOCK = re.compile(r"(<!-- (?P<kind>table|options|study): (?P<what>[^\n]+?) -->\n).*?(<!-- /(?P=kind) -->)", re.DOTALL)


def collect(runs: Iterable[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Return one row per finished run: what was run, how long, and its figures per split and group.

    Raises
    ------
    RunError
        If a directory holds no finished run.
    """
    rows = []
    for path in map(Path, runs):
        run = Run.load(path)
        outcome, data, environment = run.outcome(), run.facts(), run.environment()
        row = {key: outcome[key] for key in ("dataset", "model", "variant", "seed")}
        row["variant"] = row["variant"] or ""
        options = run.config.options
        row["row_dtype"] = options.get("row_dtype", "float32" if "embedding_dim" in options else "")
        row["protocol"] = data.get("protocol", "paper")
        row["validation"] = data["validation"]
        row.update({key: outcome[key] for key in ("epochs", "best_epoch")})
        row["seconds_per_epoch"] = round(outcome["seconds_per_epoch"], 3)
        row["peak_memory_mb"] = round(outcome["peak_memory_mb"])
        for split, details in outcome["details"].items():
            row["mask"], row["ties"] = details["mask"], details["ties"]
            row[f"{split} users"] = details["users_evaluated"]
            for group, values in details["groups"].items():
                name = split if group == "all" else f"{split} {group}"
                if group != "all":
                    row[f"{name} share"] = round(values["share"], 4)
                row.update(
                    {f"{name} {key}": round(values["metrics"][key], 4) for key in headline_metrics(values["metrics"])}
                )
        row["torch"], row["cpu"] = environment["versions"]["torch"], environment["cpu"]
        commands = [environment["command"], *environment.get("extended", [])]
        row["command"] = "; ".join("mbgraph " + " ".join(public_words(command)) for command in commands)
        rows.append(row)
    return rows


def public_words(command: Sequence[str]) -> list[str]:
    """Return a command's arguments that decide numbers: no output folder, no display options."""
    words, skip = [], False
    for word in command[1:]:
        if skip or word in ("--json", "--quiet"):
            skip = False
        elif word in ("-o", "--out", "--threads", "--svg"):
            skip = True
        else:
            words.append(word)
    return words


def write_rows(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, atomically; columns in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Read a CSV file as text; a missing one raises `DataError`."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def add_rows(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows to a CSV file, which need not exist and whose columns grow with them."""
    write_rows(path, [*(read_rows(path) if Path(path).is_file() else []), *rows])


def render_table(path: str | os.PathLike[str], columns: Sequence[str]) -> str:
    """Return a Markdown table of some columns of a CSV file; ``column=title`` renames one.

    Raises
    ------
    DataError
        If the file or a column is missing.
    """
    rows = read_rows(path)
    pairs = [(column.partition("=")[0], column.partition("=")[2] or column.partition("=")[0]) for column in columns]
    for column, _ in pairs:
        if rows and column not in rows[0]:
            raise DataError(f"{path} has no column {column!r}", f"choose from: {', '.join(rows[0])}")
    lines = ["| " + " | ".join(title for _, title in pairs) + " |", "|" + "---|" * len(pairs)]
    lines += ["| " + " | ".join(_cell(row[column]) for column, _ in pairs) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Show fractions with four decimals; everything else as it stands."""
    if re.fullmatch(r"-?\d+\.\d+", text) and abs(float(text)) < 1:
        return f"{float(text):.4f}"
    return text or "-"


def render_page(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> str:
    """Return a page's text with every table filled from its CSV file under ``root``, or from the fields of a section.

    ``<!-- table: benchmarks/results/x.csv | dataset | test HR@10=HR@10 -->`` names the file and the columns,
    ``<!-- options: regularizer infonce -->`` a section, see `mbgraph.reference.option_table`, and
    ``<!-- study: benchmarks/results/table1/table1.md -->`` what `mbgraph.bench.tables.write_all` wrote.
    """

    def fill(found: re.Match[str]) -> str:
        if found["kind"] == "options":
            return f"{found[1]}{option_table(found['what'].strip())}{found[4]}"
        if found["kind"] == "study":
            return f"{found[1]}{_study_part(Path(root) / found['what'].strip())}{found[4]}"
        file, *columns = (part.strip() for part in found["what"].split("|"))
        return f"{found[1]}{render_table(Path(root) / file, columns)}{found[4]}"

    return _BLOCK.sub(fill, Path(path).read_text(encoding="utf-8"))


def _study_part(file: Path) -> str:
    """Return tables, captions and verdicts of a study's page, its headings one level lower."""
    if not file.is_file():
        raise DataError(f"there is no {file}", "write it with: mbgraph bench STUDY --out FOLDER")
    _, mark, rest = file.read_text(encoding="utf-8").partition("\n## ")
    if not mark:
        raise DataError(f"{file} holds no table of a study", "write it with: mbgraph bench STUDY --out FOLDER")
    return re.sub("^## ", "### ", f"\n## {rest}", flags=re.MULTILINE)
