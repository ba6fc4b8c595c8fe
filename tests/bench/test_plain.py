"""The yardstick of the benchmark is honest only if it computes what we compute."""

import random

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mbgraph.bench import speed
from mbgraph.evaluation.evaluate import evaluate_splits
from mbgraph.models import StepContext, TripleBatch
from mbgraph.models.rmbrec import RMBRec
from mbgraph.training.trainer import Trainer


@pytest.fixture
def both(tiny, tmp_path):
    """The plain model and ours with the same tables. User u5 and item i4 have no edge, u3 no cart."""
    speed.write_pair_files(tiny, tmp_path / "pairs")
    plain = speed.load_plain()
    data = plain.PlainData(tmp_path / "pairs", list(tiny.behaviors), tiny.target)
    model = plain.PlainRMBRec(data, dim=8)
    ours = RMBRec(tiny.graph, tiny.target, variant="official", embedding_dim=8)
    with torch.no_grad():  # their padding row comes first, ours last
        ours.encoder.user_embedding.copy_(model.users.roll(-1, 0))
        ours.encoder.item_embedding.copy_(model.items.roll(-1, 0))
    return plain, model, ours


def to_batch(triples, behaviors):
    users = torch.arange(len(triples))
    positives = {name: triples[:, place, 1] - 1 for place, name in enumerate(behaviors)}
    negatives = {name: triples[:, place, 2] - 1 for place, name in enumerate(behaviors)}
    return TripleBatch(users, positives, negatives)


def test_terms_and_gradients_agree(both, tiny):
    _, model, ours = both
    rng = random.Random(1)
    triples = torch.tensor([model.data.sample(user, rng) for user in range(1, 7)])
    assert triples[3, 1].tolist() == [0, 0, 0]  # u3 has no cart
    expected = model.terms(triples)
    trainer = Trainer(ours, tiny, device="cpu")
    made = trainer.weighted_terms(to_batch(triples, tiny.behaviors), StepContext())
    assert set(made) == set(expected)
    for name, value in expected.items():
        assert_close(made[name], value, rtol=1e-5, atol=1e-6)
    tables = [ours.encoder.user_embedding, ours.encoder.item_embedding]
    mine = torch.autograd.grad(torch.stack(list(made.values())).sum(), tables)
    theirs = torch.autograd.grad(torch.stack(list(expected.values())).sum(), [model.users, model.items])
    for own, other in zip(mine, theirs, strict=True):
        assert_close(own, other.roll(-1, 0), rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_metrics_agree(both, tiny):
    plain, model, ours = both
    model.items.data[1:] = torch.randn(5, 8)  # apart, so that nothing ties
    ours.encoder.item_embedding.data.copy_(model.items.roll(-1, 0))
    results = evaluate_splits(ours, tiny, k=(1, 3))
    # five items: the plain loop's cut-offs of 10 and 20 would find everything
    for split, name in (("valid", "validation"), ("test", "test")):
        found = plain.evaluate(model, name, k=5, cuts=(1, 3))
        for metric, value in found.items():
            assert results[split].metrics[metric] == pytest.approx(value), (split, metric)


def test_negatives_are_items_the_user_never_touched(both, tiny):
    _, model, _ = both
    rng = random.Random(0)
    touched = {(user, item) for pairs in tiny.edges.values() for user, item in zip(pairs.user, pairs.item, strict=True)}
    for _ in range(20):
        for batch in model.data.batches(4, rng):
            for user, positive, negative in batch.reshape(-1, 3)[batch.reshape(-1, 3)[:, 0] > 0].tolist():
                assert (user - 1, positive - 1) in touched
                assert (user - 1, negative - 1) not in touched


def test_pair_files_are_what_was_written(tiny, tmp_path):
    speed.write_pair_files(tiny, tmp_path / "pairs")
    lines = np.loadtxt(tmp_path / "pairs" / "view.txt", dtype=int)
    assert (np.diff(lines[:, 0]) >= 0).all()
    assert {tuple(line) for line in lines - 1} == set(
        zip(tiny.edges["view"].user.tolist(), tiny.edges["view"].item.tolist(), strict=True)
    )
