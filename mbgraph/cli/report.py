"""`mbgraph report`: a run or a study as one page."""

from __future__ import annotations

from pathlib import Path

import click

from mbgraph.cli.bench.study import Names
from mbgraph.cli.common import PATH, Command, console, emit_json, json_option, say_no_pictures
from mbgraph.errors import UsageError


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  mbgraph report runs/demo-rmbrec-mbgraph-s2026
  mbgraph report table3 --store runs/bench -o table3.html
  mbgraph report my_study.toml
""",
)
@click.argument("what", metavar="RUN|STUDY")
@click.option("-o", "--out", "file", type=PATH, help="HTML file.  [default: report.html]")
@click.option("--datasets", type=Names(), help="Of a study, only these.")
@click.option("--store", type=PATH, help="Runs of studies.  [default: see mbgraph bench]")
@json_option
def command(what: str, file: Path | None, datasets: tuple[str, ...] | None, store: Path | None, as_json: bool) -> None:
    """Write a page about a run directory, or about what the store has of a study.

    The page stands alone: no script, nothing from elsewhere. It trains nothing. Pictures need the extra `plot`.
    """
    from mbgraph.bench.pages import run_page, study_page
    from mbgraph.bench.pictures import can_draw
    from mbgraph.bench.results import gather
    from mbgraph.bench.runner import plan
    from mbgraph.bench.store import Store, default_store
    from mbgraph.bench.study import Study, shipped_studies
    from mbgraph.files import atomic_write

    path = Path("report.html") if file is None else file
    if path.is_dir():
        raise UsageError(f"{path} is a folder", "name a file with -o")
    if what in shipped_studies() or what.endswith(".toml"):
        study = Study.load(what)
        made = plan(study, datasets)
        kept = Store(default_store() if store is None else store)
        page = study_page(gather(study, made.datasets, made.jobs, kept, notes=made.notes))
    else:
        page = run_page(what)
    if not can_draw():
        say_no_pictures()
    with atomic_write(path, "w") as open_file:
        open_file.write(page)
    if as_json:
        emit_json({"file": str(path), "pictures": page.count("<img ")})
    else:
        console.print(f"wrote {path}")
