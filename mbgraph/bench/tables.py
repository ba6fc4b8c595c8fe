"""Grids and verdicts written for a terminal, Markdown, LaTeX (booktabs) and as CSV."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbgraph.bench.grids import Box, Grid, grids
from mbgraph.bench.results import Results
from mbgraph.bench.stars import paired_tests
from mbgraph.bench.verdicts import verdicts
from mbgraph.files import atomic_write

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["latex", "markdown", "rich_table", "write_all"]


def markdown(results: Results) -> str:
    """Return the page of a study: question, notes, tables with captions, verdicts."""
    study = results.study
    lines = [f"# {study.title}", "", study.question, ""]
    lines += [f"> {note}" for note in results.notes] + ([""] if results.notes else [])
    for grid in grids(results):
        lines += [f"## {grid.title}", "", _markdown_grid(grid), grid.caption, ""]
        lines += [f"- failed: {note}" for note in grid.notes] + ([""] if grid.notes else [])
    tested = [(dataset, each) for dataset in results.datasets for each in paired_tests(results, dataset)]
    if tested:
        lines += ["## Paired tests over users", ""]
        lines += [
            "| dataset | row | best other | metric | difference | p | p (Holm) |",
            "|---|---|---|---|---:|---:|---:|",
        ]
        lines += [
            f"| {dataset} | {_pipe(t.row)} | {_pipe(t.rival)} | {t.metric} | {t.difference:+.4f} "
            f"| {t.p:.2g} | {t.p_holm:.2g} |"
            for dataset, t in tested
        ]
        lines.append("")
    decided = verdicts(results)
    if decided:
        lines += ["## Verdicts", "", "| claim | place | dataset | verdict |", "|---|---|---|---|"]
        lines += [f"| {_pipe(v.claim.text)} | {v.claim.place} | {v.dataset} | **{v.verdict}** |" for v in decided]
        lines += ["", "<details><summary>What decides them</summary>", ""]
        lines += [*(f"- {v.dataset}, {v.claim.text}: {line}" for v in decided for line in v.evidence), ""]
        lines += ["</details>", ""]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_grid(grid: Grid) -> str:
    def shown(box: Box) -> str:
        text = _pipe(box.text)
        return f"**{text}**" if box.best else f"<u>{text}</u>" if box.second else text

    lines = ["| " + " | ".join(map(_pipe, grid.columns)) + " |", "|---|" + "---:|" * (len(grid.columns) - 1)]
    lines += ["| " + " | ".join(map(shown, row)) + " |" for row in grid.rows]
    return "\n".join(lines) + "\n"


def _pipe(text: str) -> str:
    return text.replace("|", "\\|")


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$\dagger$",
}


def _tex(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def latex(results: Results) -> str:
    r"""Return a booktabs table per grid; needs ``\usepackage{booktabs}``."""
    parts = []
    for number, grid in enumerate(grids(results)):
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(grid.title)}. {_tex(grid.caption)}}}",
            rf"\label{{tab:{results.study.name}-{number + 1}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(grid.columns) - 1)}}}",
            r"\toprule",
            " & ".join(map(_tex, grid.columns)) + r" \\",
            r"\midrule",
        ]
        for place, row in enumerate(grid.rows):
            if place == grid.rule:
                lines.append(r"\midrule")
            lines.append(" & ".join(map(_tex_box, row)) + r" \\")
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n")
    return "\n".join(parts)


def _tex_box(box: Box) -> str:
    text = _tex(box.text)
    return rf"\textbf{{{text}}}" if box.best else rf"\underline{{{text}}}" if box.second else text


def rich_table(grid: Grid) -> Table:
    """Return a grid for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=grid.title, title_justify="left", caption=grid.caption or None, caption_justify="left")
    for number, column in enumerate(grid.columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0, overflow="fold")
    for place, row in enumerate(grid.rows):
        style = {True: "bold", False: ""}
        boxes = [Text(box.text, style=style[box.best] or ("underline" if box.second else "")) for box in row]
        table.add_row(*boxes, end_section=grid.rule is not None and place == grid.rule - 1)
    return table


def write_all(results: Results, folder: str | os.PathLike[str]) -> list[Path]:
    """Write a study's files into a folder: ``NAME.csv`` (cells), ``NAME_runs.csv``, ``NAME.md``, ``NAME.tex``.

    Returns
    -------
    list of Path
        What was written.
    """
    name, folder = results.study.name, Path(folder)
    texts = {f"{name}.csv": _csv(results.summary()), f"{name}.md": markdown(results), f"{name}.tex": latex(results)}
    if results.cells:
        texts[f"{name}_runs.csv"] = _csv(results.to_frame())
    for file, text in texts.items():
        with atomic_write(folder / file, "w") as open_file:
            open_file.write(text)
    return [folder / file for file in texts]


def _csv(frame: Any) -> str:
    return str(frame.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
