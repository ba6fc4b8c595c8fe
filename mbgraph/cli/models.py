"""`mbgraph models`."""

from __future__ import annotations

from typing import Any

import click

from mbgraph.cli.common import Command, emit_json, json_option, table

EPILOG = """\b
Examples:
  mbgraph models
  mbgraph models --json
"""


@click.command(cls=Command, epilog=EPILOG)
@json_option
def command(as_json: bool) -> None:
    """List models and regularizers with their options."""
    import inspect

    from mbgraph.models import MODELS
    from mbgraph.regularizers import REGULARIZERS

    models: dict[str, dict[str, Any]] = {
        name: {
            "summary": (inspect.getdoc(MODELS.get(name)) or "").split("\n")[0],
            "trained": MODELS.get(name).trainable,
            "variants": list(MODELS.get(name).variants),
            "options": list(MODELS.get(name).option_names()),
        }
        for name in MODELS
    }
    regularizers: dict[str, dict[str, Any]] = {
        name: {
            "summary": (inspect.getdoc(REGULARIZERS.get(name)) or "").split("\n")[0],
            "options": [key for key in inspect.signature(REGULARIZERS.get(name)).parameters if key != "schedule"],
        }
        for name in REGULARIZERS
    }
    if as_json:
        emit_json({"models": models, "regularizers": regularizers})
        return
    table(
        "models",
        ["name", "variants", "options"],
        [[name, ", ".join(facts["variants"]) or "-", _wrapped(facts["options"])] for name, facts in models.items()],
    )
    table(
        "regularizers",
        ["name", "options"],
        [[name, _wrapped([*facts["options"], "warmup"])] for name, facts in regularizers.items()],
    )


def _wrapped(names: list[str], per_line: int = 4) -> str:
    """Join names, a few to a line."""
    lines = [", ".join(names[start : start + per_line]) for start in range(0, len(names), per_line)]
    return ",\n".join(lines) or "-"
