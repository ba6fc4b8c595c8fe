"""The batch of large graphs: how many steps an epoch has, what is scaled, and that small graphs keep what they had."""

import math

import pytest

from mbgraph.errors import UsageError
from mbgraph.models import MODELS, RMBRec, TrainingOptions, batch_rule
from mbgraph.models.batch_rule import choose_batch
from mbgraph.regularizers import InfoNCE, REx
from mbgraph.testing.recommenders import toy_dataset
from mbgraph.training import Trainer

TRAINED = [name for name in MODELS if MODELS.get(name).trainable]


@pytest.fixture
def model():
    ds = toy_dataset()
    return RMBRec(ds.graph, ds.target, embedding_dim=4, num_layers=1)


def small_batches(monkeypatch, kind, rows):
    """Let a model's own batches be of so few rows that a toy graph is a large one."""
    real = kind.Options.training
    monkeypatch.setattr(kind.Options, "training", lambda self: real(self).replace(batch_size=rows))


@pytest.mark.parametrize("name", TRAINED)
def test_small_graphs_keep_the_models_own_batch(name):
    ds = toy_dataset()
    model = MODELS.get(name)(ds.graph, ds.target)
    own, terms = model.options.training(), model.options.regularizers()
    choice = choose_batch(model, ds, own.replace(batch_size="auto"), terms)
    assert (choice.training, choice.regularizers, choice.times) == (own, terms, 1)
    assert f"auto took {own.batch_size:,}, the model's own: an epoch has {choice.steps} step" in choice.note


@pytest.mark.parametrize("name", TRAINED)
def test_an_epoch_of_a_large_graph_has_few_steps(name, monkeypatch):
    """24 users in batches of one are 24 steps: with at most 5 it takes the least multiple that does."""
    ds = toy_dataset()
    small_batches(monkeypatch, MODELS.get(name), 1)
    monkeypatch.setattr(batch_rule, "MOST_STEPS", 5)
    model = MODELS.get(name)(ds.graph, ds.target)
    own = model.options.training()
    choice = choose_batch(model, ds, own.replace(batch_size="auto"), model.options.regularizers())
    before, after = (len(model.batches(ds, each, 0)) for each in (own, choice.training))
    assert before > 5
    assert choice.times == math.ceil(before / 5) == choice.training.batch_size
    assert (choice.own_steps, choice.steps) == (before, after)
    assert after <= 5


@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("sqrt", math.sqrt(5)), ("linear", 5.0)])
def test_the_step_size_follows_its_rule(model, monkeypatch, rule, factor):
    small_batches(monkeypatch, RMBRec, 1)
    monkeypatch.setattr(batch_rule, "MOST_STEPS", 5)
    training = TrainingOptions(batch_size="auto", lr=0.02, lr_scaling=rule, weight_decay=0.1)
    choice = choose_batch(model, toy_dataset(), training, ())
    assert choice.times == 5
    assert choice.training.lr == pytest.approx(0.02 * factor, rel=1e-5)
    assert choice.training.weight_decay == 0.1
    assert f"lr {choice.training.lr:g} (lr_scaling={rule})" in choice.note


def test_contrasts_are_cut_into_blocks_of_the_own_batch(model, monkeypatch):
    small_batches(monkeypatch, RMBRec, 2)
    monkeypatch.setattr(batch_rule, "MOST_STEPS", 5)
    terms = (InfoNCE(weight=0.5), InfoNCE(label="items", side="item", candidates="all"), REx())
    choice = choose_batch(model, toy_dataset(), TrainingOptions(batch_size="auto"), terms)
    assert choice.regularizers == (InfoNCE(weight=0.5, candidates="block", block=2), *terms[1:])
    assert choice.note.startswith(
        "batch_size=auto took 6, 3 times the model's own: an epoch has 4 steps over the whole graph instead of 12; lr "
    )
    assert choice.note.endswith("; infonce in blocks of 2")


def test_a_trainer_makes_numbers_of_it(model, monkeypatch):
    """And its epochs are those of the numbers, given by hand."""
    small_batches(monkeypatch, RMBRec, 2)
    monkeypatch.setattr(batch_rule, "MOST_STEPS", 5)
    ds = toy_dataset()
    options = {"epochs": 2, "rng": 3, "device": "cpu"}
    made = Trainer(model, ds, batch_size="auto", lr=0.01, lr_scaling="linear", **options)
    assert (made.steps_per_epoch, made.training.batch_size) == (4, 6)
    made.fit()
    other = RMBRec(ds.graph, ds.target, embedding_dim=4, num_layers=1)
    terms = [entry.in_blocks(2) for entry in other.options.regularizers()]
    by_hand = Trainer(other, ds, terms, batch_size=6, lr=0.03, **options)
    by_hand.fit()
    assert [record["terms"] for record in made.records] == [record["terms"] for record in by_hand.records]


def test_batches_need_a_number(model):
    with pytest.raises(UsageError, match="batch_size=auto is decided where a trainer is made; give batches a number"):
        model.batches(toy_dataset(), TrainingOptions(batch_size="auto"), 0).epoch(1).__next__()
