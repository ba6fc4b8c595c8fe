"""`mbgraph doctor`."""

from __future__ import annotations

import click

from mbgraph.cli.common import Command, console, emit_json, json_option, out, table

EPILOG = """\b
Examples:
  mbgraph doctor
  mbgraph doctor --json
"""


@click.command("doctor", cls=Command, epilog=EPILOG)
@json_option
def command(as_json: bool) -> None:
    """Check versions, device, threads, what carries the graph, and where datasets are looked for.

    Exits with 0 when training would work here, else with 1 and one line per problem.
    """
    from mbgraph.doctor import examine

    report = examine()
    if as_json:
        emit_json(report)
    else:
        machine, health = report["machine"], report["graph"]
        table(
            "Versions", ["", ""], [[name, version or "not installed"] for name, version in report["versions"].items()]
        )
        out.print(f"platform: {machine['platform']}", soft_wrap=True)
        out.print(f"cpu: {machine['cpu']}, {machine['cores']} cores", soft_wrap=True)
        if machine["device"]:
            out.print(
                f"torch: {machine['threads']} threads, --device auto means {machine['device']}",
                soft_wrap=True,
            )
        out.print(f"compiled kernels: {machine['kernels']}", soft_wrap=True)
        out.print(f"graph: {health['detail']}", soft_wrap=True)
        if health["reason"]:
            holder = "DGL" if health["carrier"] == "dgl" else "mbgraph itself"
            out.print(f"{holder} carries the graph: {health['reason']}", soft_wrap=True)
        for place in report["datasets"]["places"]:
            state = (
                "not set" if place["path"] is None else place["path"] + ("" if place["exists"] else " (no such folder)")
            )
            out.print(f"datasets in {place['name']}: {state}", soft_wrap=True)
        out.print(f"datasets found: {', '.join(report['datasets']['found'])}", soft_wrap=True)
    for problem in report["problems"]:
        console.print(f"error: {problem}")
    if not report["healthy"]:
        click.get_current_context().exit(1)
    if not as_json:
        out.print("all is well", soft_wrap=True)
