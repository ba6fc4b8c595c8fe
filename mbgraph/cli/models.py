"""`mbgraph models`."""

from __future__ import annotations

from typing import Any

import click

from mbgraph.cli.common import Command, emit_json, json_option, out, table

EPILOG = """\b
Examples:
  mbgraph models
  mbgraph models rmbrec
  mbgraph models infonce
  mbgraph models training
  mbgraph models --json
"""


@click.command(cls=Command, epilog=EPILOG)
@click.argument("name", required=False, metavar="[NAME]")
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List models and regularizers; with NAME, the options of one.

    NAME is a model, a regularizer, `training` or `evaluation`.
    """
    from mbgraph.reference import describe_models, describe_regularizers

    models, regularizers = describe_models(), describe_regularizers()
    if name is not None:
        _one(name, models, regularizers, as_json)
        return
    if as_json:
        emit_json({"models": models, "regularizers": regularizers})
        return
    table(
        "models",
        ["name", "what it is", "variants", "cost", "options"],
        [
            [
                name,
                facts["summary"],
                ", ".join(facts["variants"]) or "-",
                facts["propagations"].get(3),
                _names(facts["options"]),
            ]
            for name, facts in models.items()
        ],
    )
    table(
        "regularizers",
        ["name", "what it does", "options"],
        [[name, facts["summary"], _names(facts["options"])] for name, facts in regularizers.items()],
    )
    out.print("cost: propagations of a training step with three behaviors, each a layer of one graph to both sides")
    out.print("what an option means, and where a model comes from: mbgraph models NAME")


def _one(name: str, models: dict[str, Any], regularizers: dict[str, Any], as_json: bool) -> None:
    from mbgraph.errors import UnknownNameError
    from mbgraph.reference import section_called
    from mbgraph.schema import shown

    known = {**models, **regularizers}
    if name not in (*known, "training", "evaluation"):
        raise UnknownNameError("model or regularizer", name, [*known, "training", "evaluation"])
    kind = "model " if name in models else "regularizer " if name in regularizers else ""
    options = [fact.to_dict() for fact in section_called(kind + name).facts()]
    facts = {"name": name, **known.get(name, {}), "options": options}
    if as_json:
        emit_json(facts)
        return
    for key in ("summary", "citation"):
        if facts.get(key):
            out.print(facts[key], soft_wrap=True)
    rows = [
        [
            option["name"],
            option["type"],
            "-" if option["default"] in (None, "") else shown(option["default"]),
            option["doc"],
        ]
        for option in options
    ]
    table(f"options of {name}", ["option", "value", "default", "meaning"], rows)
    if facts.get("propagations"):
        costs = " and ".join(
            f"{cost} propagations with {count} behaviors" for count, cost in facts["propagations"].items()
        )
        out.print(f"a training step: {costs}", soft_wrap=True)
    if facts.get("training"):
        words = ", ".join(f"{key}={shown(value)}" for key, value in facts["training"].items())
        out.print(f"training: {words}", soft_wrap=True)
    for entry in facts.get("regularizers", ()):
        words = ", ".join(f"{key}={shown(value)}" for key, value in entry.items() if value != "")
        out.print(f"regularizer: {words}", soft_wrap=True)


def _names(options: list[dict[str, Any]], per_line: int = 4) -> str:
    """Join names, a few to a line."""
    names = [option["name"] for option in options]
    lines = [", ".join(names[start : start + per_line]) for start in range(0, len(names), per_line)]
    return ",\n".join(lines) or "-"
