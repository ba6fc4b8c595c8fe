"""LightGCN, SimGCL and CRGCN beside their golden arrays: how they train, what they read, what they refuse."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError, UsageError
from mbgraph.models import CRGCN, LightGCN, SimGCL, StepContext, TrainingOptions, TripleBatches
from mbgraph.regularizers import L2, triple_norm
from mbgraph.testing.recommenders import toy_dataset


@pytest.fixture(scope="module")
def ds():
    return toy_dataset()


def first_batch(model, ds, **changes):
    training = model.options.training().replace(**changes)
    return next(iter(model.batches(ds, training, 3).epoch(1)))


def facts(training):
    return training.sampler, training.history, training.batch_size, training.lr, training.weight_decay


def test_how_the_published_codes_train():
    assert facts(LightGCN.Options().training()) == ("with-replacement", "target", 2048, 1e-3, 0.0)
    assert facts(LightGCN.Options(variant="union").training()) == ("per-user", "all", 1024, 1e-3, 1e-3)
    assert facts(SimGCL.Options().training()) == ("per-edge", "target", 2048, 1e-3, 0.0)
    assert facts(CRGCN.Options().training()) == ("per-user", "all", 1024, 1e-3, 0.0)


def test_what_the_published_codes_add_to_bpr():
    (norm,) = LightGCN.Options().regularizers()
    assert norm == L2(weight=1e-4, on="ego")
    users, items, norm = SimGCL.Options().regularizers()
    assert (users.side, items.side, users.between, users.term, items.term) == (
        "user",
        "item",
        "views",
        "users",
        "items",
    )
    assert norm == L2(weight=1e-4, on="propagated", power=1, negatives=False)
    assert CRGCN.Options().regularizers() == (L2(weight=1e-3, on="tables", power=1, divide_by="items"),)


def test_negatives_of_lightgcn_may_be_items_of_an_auxiliary_behavior():
    """Users viewed every item but one and bought one: with the target's history alone, negatives are mostly viewed."""
    users, items = np.divmod(np.arange(20 * 10), 10)
    viewed = items < 9
    ds = MultiBehaviorDataset(
        "viewed", Vocabulary(size=20), Vocabulary(size=10),
        {"view": Pairs(users[viewed], items[viewed]), "buy": Pairs(np.arange(20), np.arange(20) % 9)}, "buy",
    )  # fmt: skip
    negatives = first_batch(LightGCN(ds.graph, "buy"), ds).negatives["buy"]
    assert float((negatives < 9).float().mean()) > 0.6
    all_of_them = first_batch(LightGCN(ds.graph, "buy", variant="union"), ds).negatives["buy"]
    assert (all_of_them[all_of_them >= 0] == 9).all()


def test_the_norm_is_of_table_rows(ds):
    model = LightGCN(ds.graph, ds.target, embedding_dim=8)
    batch = first_batch(model, ds)
    users, positives, negatives = batch.rows(ds.target)
    tables = model.tables
    expected = triple_norm(tables[0][users], tables[1][positives], tables[1][negatives])
    (norm,) = model.options.regularizers()
    assert_close(norm(model.step(batch, StepContext())), expected)


def test_the_union_is_one_graph_of_all_pairs(ds):
    alone, union = (LightGCN(ds.graph, ds.target, embedding_dim=8, union=union) for union in (False, True))
    assert (alone.behaviors, union.behaviors) == (("buy",), ("view", "cart", "buy"))
    pairs = {name: set(zip(edges.user.tolist(), edges.item.tolist(), strict=True)) for name, edges in ds.edges.items()}
    relation = union.relation()
    assert sorted(zip(relation.users.tolist(), relation.items.tolist(), strict=True)) == sorted(
        set().union(*pairs.values())
    )
    assert union.relation() is relation  # made once
    assert alone.relation().num_edges == len(pairs["buy"])
    for model in (alone, union):
        batches = model.batches(ds, model.options.training(), 0)
        assert isinstance(batches, TripleBatches)
        assert batches.behaviors == ("buy",)  # trained on the target's pairs either way


@pytest.mark.parametrize("kind", [LightGCN, SimGCL, CRGCN])
@pytest.mark.parametrize("negatives", [1, 3])
def test_several_negatives_are_a_mean(ds, kind, negatives):
    model = kind(ds.graph, ds.target, embedding_dim=8, rng=1)
    batch = first_batch(model, ds, negatives=negatives, sampler="per-user")
    outputs = model.step(batch, StepContext())
    rows = batch.rows(ds.target)
    encoded = model.encode()
    gamma = model.options.gamma
    total = []
    for user, positive, others in zip(*rows, strict=True):
        for negative in others.reshape(-1):
            margin = encoded.users[user] @ (encoded.items[positive] - encoded.items[negative])
            total.append(-torch.log(gamma + torch.sigmoid(margin)))
    assert len(total) == negatives * len(rows[0])
    made = outputs.losses.get("main", outputs.losses.get(ds.target))
    assert_close(made, torch.stack(total).mean(), rtol=1e-4, atol=1e-6)


def test_the_noise_of_simgcl_belongs_to_its_step(ds):
    """The same step draws the same, another one draws another; the two views, their layers and sides all differ."""
    model = SimGCL(ds.graph, ds.target, embedding_dim=8, num_layers=2, rng=1)
    batch = first_batch(model, ds)

    def views(context):
        return [rows.detach() for pair in model.step(batch, context).views.values() for rows in pair]

    one, again, other = views(StepContext(1, 0, 3)), views(StepContext(1, 0, 3)), views(StepContext(1, 1, 3))
    for a, b, c in zip(one, again, other, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[2], one[3])
    shape = torch.Size([5, 4])
    drawn = [
        model.noise(view, layer, side, shape, StepContext(2, 1, 3))
        for view in (1, 2)
        for layer in (1, 2)
        for side in ("user", "item")
    ]
    assert len({tuple(noise.flatten().tolist()) for noise in drawn}) == 8
    assert all(0 <= float(noise.min()) <= float(noise.max()) < 1 for noise in drawn)


def test_simgcl_without_noise_has_two_equal_views(ds):
    model = SimGCL(ds.graph, ds.target, embedding_dim=8, eps=0.0, rng=1)
    batch = first_batch(model, ds)
    encoded = model.encode()
    views = model.step(batch, StepContext()).views
    for side, table in (("user", encoded.users), ("item", encoded.items)):
        for rows in views[side]:
            assert_close(rows, table[batch.distinct(side, ds.target)])


def test_a_cascade_reads_its_behaviors_in_order(ds):
    forward, backward = (
        CRGCN(ds.graph, ds.target, behaviors=order, embedding_dim=8, rng=1)
        for order in (("view", "cart", "buy"), ("cart", "view", "buy"))
    )
    assert not torch.allclose(forward.encode().users, backward.encode().users)
    assert CRGCN(ds.graph, ds.target).behaviors == ("view", "cart", "buy")  # the dataset's, not the alphabet's
    with pytest.raises(
        DataError, match=r"the model reads cart, view, buy, dataset 'toy' has view, cart, buy; build it"
    ):
        backward.check_dataset(ds)
    bare = forward.relations.select(("cart", "view", "buy"))
    bare.has_order = False
    with pytest.raises(UsageError, match=r"'crgcn' reads the behaviors in order, and this graph has none; name them"):
        CRGCN(bare, ds.target)
    with pytest.raises(
        UsageError, match=r"layers of model 'crgcn' has 2 numbers for 3 behaviors; give one for each of"
    ):
        CRGCN(ds.graph, ds.target, layers=[1, 2])


def test_users_without_a_behavior_stay_out_of_its_loss_in_a_cascade(ds):
    model = CRGCN(ds.graph, ds.target, embedding_dim=8)
    batch = first_batch(model, ds, batch_size=100)
    outputs = model.step(batch, StepContext())
    for name in ds.behaviors:
        assert len(outputs.margins[name]) == int((batch.positives[name] >= 0).sum()) < len(batch)


def test_training_options_are_those_of_the_class():
    assert TrainingOptions().sampler == "per-user"
    assert LightGCN.variants() == ("target", "union")
    assert SimGCL.variants() == ()
