"""`mbgraph data check`: what is odd about a dataset."""

from __future__ import annotations

import click

from mbgraph.cli.common import Command, console, dataset_argument, emit_json, json_option, table


@click.command(
    name="check",
    cls=Command,
    epilog="""\b
Examples:
  mbgraph data check
  mbgraph data check beibei
  mbgraph data check shop --strict
""",
)
@dataset_argument
@click.option("--strict", is_flag=True, help="Exit with 1 if there is an error or a warning.")
@json_option
def command(dataset: str, strict: bool, as_json: bool) -> None:
    """Compare a dataset with its card and look for what makes results hard to read.

    Every finding has a code that docs/checks.md explains. Data that cannot be loaded is described too.
    """
    from mbgraph.data.catalog import find_dataset, load_dataset
    from mbgraph.data.check import check
    from mbgraph.errors import RunError

    findings = check(load_dataset(dataset) if dataset == "demo" else find_dataset(dataset))
    if as_json:
        emit_json(
            {
                "dataset": dataset,
                "findings": [
                    {"code": found.code, "severity": found.severity, "title": found.title, "text": found.text}
                    for found in findings
                ],
            }
        )
    elif findings:
        rows = [[found.code, found.severity, found.title, found.text] for found in findings]
        table(f"{dataset}: findings", ["code", "severity", "what", "found"], rows)
        console.print("explained in docs/checks.md")
    else:
        console.print(f"{dataset}: nothing to report")
    serious = [found.code for found in findings if found.severity != "note"]
    if strict and serious:
        raise RunError(f"{dataset} has {len(serious)} findings: {', '.join(serious)}", "see docs/checks.md")
