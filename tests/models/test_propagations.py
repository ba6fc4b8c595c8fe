"""What a training step costs, as the options say it, against the neighbour sums that a step asks for."""

from __future__ import annotations

import pytest

import mbgraph as mb
from mbgraph import _kernels
from mbgraph.models import MODELS
from mbgraph.models.context import StepContext
from mbgraph.nn.relation import Relation
from mbgraph.testing.recommenders import toy_dataset

THREE = ("view", "cart", "buy")
CASES = [
    (name, variant, behaviors)
    for name in MODELS
    if MODELS.get(name).trainable
    for variant in MODELS.get(name).variants() or (None,)
    for behaviors in (THREE, ("view", "collect", "cart", "buy"))
]


def counted(name, behaviors, monkeypatch, **options):
    """Return what a step of a model asks for: a sum to one side of rows of the tables' width is half a propagation."""
    ds = toy_dataset(behaviors)
    model = MODELS.get(name)(ds.graph, ds.target, behaviors=ds.behaviors, rng=1, **options)
    trainer = mb.Trainer(model, ds, epochs=1)
    model.begin_epoch(StepContext(1, 0, 1))
    batch = next(iter(model.batches(ds, model.options.training(), 1).epoch(1)))
    widths = []
    plain = Relation.neighbor_sum

    def counting(self, rows, to):
        widths.append(rows.shape[1])
        return plain(self, rows, to)

    monkeypatch.setattr(_kernels, "available", False)
    monkeypatch.setattr(Relation, "neighbor_sum", counting)
    outputs = model.step(batch, StepContext(1, 0, trainer.rng))
    for regularizer in model.options.regularizers():  # views of a contrast are made when they are asked for
        regularizer(outputs)
    return sum(widths) / 2 / model.options.embedding_dim


@pytest.mark.parametrize(("name", "variant", "behaviors"), CASES)
def test_a_step_costs_what_the_options_say(name, variant, behaviors, monkeypatch):
    options = {} if variant is None else {"variant": variant}
    said = MODELS.get(name).Options(**options).propagations(len(behaviors))
    assert counted(name, behaviors, monkeypatch, **options) == said


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lightgcn", {"num_layers": 2, "union": True}),
        ("simgcl", {"num_layers": 3}),
        ("crgcn", {"layers": (1, 3, 2)}),
        ("mbcgcn", {"layers": (1, 3, 2)}),
        ("pkef", {"layers": (2, 1, 3)}),
        ("uipl", {"environments": "singles", "num_layers": 1}),
    ],
)
def test_other_options(name, options, monkeypatch):
    said = MODELS.get(name).Options(**options).propagations(3)
    assert counted(name, THREE, monkeypatch, **options) == said


def test_what_propagates_nothing_costs_nothing():
    assert MODELS.get("missl").Options().propagations(3) == 0
    assert MODELS.get("conversion").Options().propagations(3) == 0
