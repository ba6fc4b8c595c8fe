"""How much a behavior says about purchases: by hand, in a loop, and what the regularizers make of it."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mbgraph.data.interactions import Pairs
from mbgraph.errors import UsageError
from mbgraph.models import RMBRec, SMBRec
from mbgraph.models.context import StepContext
from mbgraph.nn import Relations, alignment_weights
from mbgraph.regularizers import InfoNCE, IRMv1, REx, StepOutputs, infonce, irm_penalty, risk_variance
from mbgraph.testing.recommenders import toy_dataset
from mbgraph.training.trainer import Trainer


def weights(ds, **options):
    return alignment_weights(Relations.of(ds.graph, ds.behaviors, ds.target), **options)


def test_by_hand(tiny):
    """u0 bought i0, which it viewed; u1 i1, viewed and carted; u2 i2 and u3 i0, viewed; u4 i3, both. u3 has no cart."""
    found = weights(tiny, smoothing=1.0)
    assert found["buy"].tolist() == [1.0] * 6
    assert found["view"].tolist() == [1, 1, 1, 1, 1, 0]  # every purchase was viewed; u5 views nothing
    cart = 2 / 5  # u1 and u4 of five purchases
    assert_close(found["cart"], torch.tensor([cart / 2, (1 + cart) / 2, cart / 2, 0, (1 + cart) / 2, 0]))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smoothing", [0.5, 5.0])
def test_against_a_loop(seed, smoothing):
    ds = toy_dataset(seed=seed)
    found = weights(ds, smoothing=smoothing)
    bought = set(zip(ds.edges["buy"].user.tolist(), ds.edges["buy"].item.tolist(), strict=True))
    for name in ("view", "cart"):
        pairs = set(zip(ds.edges[name].user.tolist(), ds.edges[name].item.tolist(), strict=True))
        rate = len(bought & pairs) / len(bought)
        for user in range(ds.num_users):
            mine = {pair for pair in bought if pair[0] == user}
            wanted = (len(mine & pairs) + smoothing * rate) / (len(mine) + smoothing)
            wanted *= any(pair[0] == user for pair in pairs)
            assert float(found[name][user]) == pytest.approx(wanted, abs=1e-6)


def test_held_out_pairs_are_not_read():
    ds = toy_dataset()
    for one, other in zip(weights(ds).values(), weights(ds.replace(splits={})).values(), strict=True):
        assert torch.equal(one, other)


def rows(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("unbiased", [True, False])
def test_the_weighted_variance(unbiased):
    """Equal weights of 1 change nothing; (2, 1, 0) of 1, 4 and 9: mean 2, squares 2 and 4."""
    risks = [torch.tensor(value) for value in (1.0, 4.0, 9.0)]
    assert_close(risk_variance(risks, unbiased, [1.0] * 3), risk_variance(risks, unbiased))
    assert_close(risk_variance(risks, unbiased, [2.0, 1.0, 0.0]), torch.tensor(6.0 / (2 if unbiased else 3)))
    assert float(risk_variance(risks, unbiased, [0.0, 0.0, 1.0])) == 0
    assert float(risk_variance(risks, unbiased, [0.0, 0.0, 0.0])) == 0


def test_the_penalty_counts_each_behavior_by_its_level():
    one, two = rows(6, seed=1), rows(6, seed=2)
    whole = irm_penalty([one, two], levels=[0.25, 1.0])
    assert_close(whole, 0.25 * irm_penalty([one]) + irm_penalty([two]))
    assert_close(irm_penalty([one, two], levels=[1.0, 1.0]), irm_penalty([one, two]))
    assert_close(irm_penalty([one[:0], two], levels=[0.25, 0.5]), 0.5 * irm_penalty([two]))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("supported", [False, True])
def test_the_contrast_counts_each_user_and_divides_by_all(reduction, supported):
    target, view = rows(5, 3, seed=3), rows(5, 3, seed=4)
    known = torch.tensor([0.5, 0.0, 1.0, 0.25, 0.0], dtype=torch.float64)
    outputs = StepOutputs(
        "buy",
        anchors={"user": {"view": view, "buy": target}},
        anchor_weights={"user": {"view": (known > 0).double()}},
        alignment={"user": {"view": known, "buy": torch.ones(5, dtype=torch.float64)}},
    )
    term = InfoNCE(adaptive=True, reduction=reduction, supported_only=supported, temperature=0.5)(outputs)
    kept = known > 0 if supported else torch.ones(5, dtype=torch.bool)
    each = [
        infonce(target[kept], view[kept], temperature=0.5, reduction="sum", weights=torch.eye(5).double()[user][kept])
        for user in range(5)
    ]
    total = sum(known[user] * each[user] for user in range(5))
    assert_close(term, total if reduction == "sum" else total / kept.sum())


def test_a_behavior_that_nobody_has_pulls_nothing():
    target, cart = rows(4, 3, seed=5).requires_grad_(), rows(4, 3, seed=6).requires_grad_()
    outputs = StepOutputs(
        "buy",
        anchors={"user": {"cart": cart, "buy": target}},
        alignment={"user": {"cart": torch.zeros(4, dtype=torch.float64)}},
    )
    term = InfoNCE(adaptive=True)(outputs)
    term.backward()
    assert float(term.detach()) == 0
    assert not target.grad.any()


@pytest.mark.parametrize("kind", [InfoNCE, REx, IRMv1])
def test_a_model_that_does_not_say_is_refused(kind):
    outputs = StepOutputs(
        "buy",
        risks={"buy": torch.ones(())},
        margins={"buy": rows(3)},
        anchors={"user": {"view": rows(2, 2), "buy": rows(2, 2)}},
    )
    with pytest.raises(UsageError, match="needs 'alignment.*', which this model does not give"):
        kind(adaptive=True)(outputs)


@pytest.mark.parametrize("options", [{"weighted": True}, {"between": "views"}])
def test_two_ways_to_count_are_refused(options):
    with pytest.raises(UsageError, match="either by the model's weights or by their alignment"):
        InfoNCE(adaptive=True, **options)


@pytest.mark.parametrize("variant", ["mbgraph", "official"])
def test_rmbrec_gives_the_weights_of_its_anchors(variant):
    """A padding node, where there is one, counts nothing."""
    ds = toy_dataset()
    model = RMBRec(ds.graph, ds.target, behaviors=ds.behaviors, variant=variant, embedding_dim=4, num_layers=1, rng=1)
    context = StepContext(1, 0, 3)
    batch = next(iter(model.batches(ds, model.options.training().replace(batch_size=24), 3).epoch(1)))
    outputs = model(batch, context)
    padding = ds.num_users if variant == "official" else None
    anchors = batch.distinct("user", "buy", padding)
    expected = weights(ds)
    for name in ("view", "cart"):
        wanted = torch.cat([expected[name], torch.zeros(1)])[anchors]
        assert torch.equal(outputs.alignment["user"][name], wanted)
        assert outputs.alignment_levels[name] == pytest.approx(float(expected[name].mean()))
    assert outputs.alignment_levels["buy"] == 1.0


@pytest.mark.parametrize("anchors", ["nodes", "rows"])
def test_smbrec_gives_the_weights_of_its_anchors(anchors):
    ds = toy_dataset()
    model = SMBRec(ds.graph, ds.target, behaviors=ds.behaviors, embedding_dim=4, num_layers=1, anchors=anchors, rng=1)
    batch = next(iter(model.batches(ds, model.options.training().replace(batch_size=24), 3).epoch(1)))
    outputs = model(batch, StepContext(1, 0, 3))
    users = batch.distinct("user", "buy") if anchors == "nodes" else batch.rows("buy")[0]
    assert torch.equal(outputs.alignment["user"]["cart"], weights(ds)["cart"][users])


def test_it_trains():
    """With a cart that one user has, whose weights are nearly nothing."""
    ds = toy_dataset()
    ds = ds.replace(edges={**ds.edges, "cart": Pairs(np.array([1]), np.array([15]))})
    model = RMBRec(ds.graph, ds.target, behaviors=ds.behaviors, embedding_dim=4, num_layers=1, rng=1)
    assert float(model.alignment["cart"].mean()) < 0.02
    terms = [InfoNCE(adaptive=True), REx(adaptive=True)]
    records = Trainer(model, ds, terms, epochs=2, batch_size=8, rng=1, device="cpu").fit().records
    assert all(np.isfinite(list(record["terms"].values())).all() for record in records)
