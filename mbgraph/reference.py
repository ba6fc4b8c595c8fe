"""The options of models, training, evaluation and regularizers as facts and as tables, read off their fields."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from mbgraph.config import FitConfig
from mbgraph.errors import UnknownNameError
from mbgraph.evaluation.options import EvaluationOptions
from mbgraph.limits import Limits
from mbgraph.models import MODELS
from mbgraph.models.options import TrainingOptions
from mbgraph.regularizers import REGULARIZERS
from mbgraph.schema import FieldFacts, Section, shown

__all__ = ["describe_models", "describe_regularizers", "option_table", "section_called"]

_SECTIONS: dict[str, type[Section]] = {
    "configuration": FitConfig,
    "training": TrainingOptions,
    "evaluation": EvaluationOptions,
    "limits": Limits,
}


def section_called(name: str) -> type[Section]:
    """Return the section that a name stands for.

    Names are ``configuration``, ``training``, ``evaluation``, ``limits``, ``model NAME`` and ``regularizer NAME``.

    Raises
    ------
    UnknownNameError
        For any other name.
    """
    kind, _, which = name.partition(" ")
    if kind == "model" and which:
        return MODELS.get(which).Options
    if kind == "regularizer" and which:
        return REGULARIZERS.get(which)
    if name not in _SECTIONS:
        raise UnknownNameError("section", name, [*_SECTIONS, "model NAME", "regularizer NAME"])
    return _SECTIONS[name]


def option_table(name: str) -> str:
    """Return a Markdown table of a section's options: name, type, default, meaning.

    Options that every regularizer has are left out of a regularizer's own table; ``regularizer`` alone has them.
    """
    rows = ["| Option | Value | Default | Meaning |", "|---|---|---|---|"]
    for fact in _own_facts(name):
        cells = (f"`{fact.name}`", fact.type, _default(fact), fact.doc.replace("``", "`"))
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _own_facts(name: str) -> Iterator[FieldFacts]:
    from mbgraph.regularizers.base import Regularizer

    shared = set(Regularizer.names())
    if name == "regularizer":
        yield from Regularizer.facts()
        return
    for fact in section_called(name).facts():
        if not name.startswith("regularizer ") or fact.name not in shared:
            yield fact


def _default(fact: FieldFacts) -> str:
    return "-" if fact.default in (None, "", (), {}) else f"`{shown(fact.default)}`"


def describe_models() -> dict[str, dict[str, Any]]:
    """Return what can be fitted, by name.

    Summary, source, variants, options, and by default how it is trained and how many propagations a training step costs
    with three and with four behaviors.
    """
    made: dict[str, dict[str, Any]] = {}
    for name in MODELS:
        model = MODELS.get(name)
        own = model.Options()
        made[name] = {
            "summary": _summary(model),
            "citation": model.citation,
            "trained": model.has_weights(),
            "variants": list(model.variants()),
            "options": [fact.to_dict() for fact in model.Options.facts()],
            "propagations": {count: own.propagations(count) for count in (3, 4)} if model.trainable else {},
            "training": own.training().plain() if model.trainable else {},
            "regularizers": [{"name": each.name, **each.plain()} for each in own.regularizers()],
        }
    return made


def describe_regularizers() -> dict[str, dict[str, Any]]:
    """Return the regularizers by name: summary and options."""
    return {
        name: {
            "summary": _summary(REGULARIZERS.get(name)),
            "options": [fact.to_dict() for fact in REGULARIZERS.get(name).facts()],
        }
        for name in REGULARIZERS
    }


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").split("\n")[0]
