"""The batches of triples against set membership, and their distributions."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.models import ANY, ExtendedBatches, TrainingOptions, TripleBatch, TripleBatches
from mbgraph.models.options import HISTORIES, SAMPLERS

BEHAVIORS = ("view", "buy")


def make(view, buy, num_users, num_items):
    def pairs(cells):
        users, items = zip(*sorted(cells), strict=True)
        return Pairs(np.array(users), np.array(items))

    return MultiBehaviorDataset(
        "made", Vocabulary(size=num_users), Vocabulary(size=num_items), {"view": pairs(view), "buy": pairs(buy)}, "buy"
    )


def batches(dataset, rng=0, **training):
    return TripleBatches(dataset, BEHAVIORS, TrainingOptions(**training), rng=rng)


def sets_of(dataset):
    return {
        name: set(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True)) for name, pairs in dataset.edges.items()
    }


def allowed(sets, name, history):
    """Return the pairs that are no negatives of a behavior's triples."""
    return {"all": sets["view"] | sets["buy"], "behavior": sets[name], "target": sets["buy"]}[history]


@st.composite
def datasets(draw):
    num_users, num_items = draw(st.integers(1, 8)), draw(st.integers(1, 7))
    cell = st.tuples(st.integers(0, num_users - 1), st.integers(0, num_items - 1))
    view, buy = (draw(st.sets(cell, min_size=1, max_size=20)) for _ in BEHAVIORS)
    return make(view, buy, num_users, num_items)


@given(datasets(), st.sampled_from(SAMPLERS), st.sampled_from(HISTORIES), st.integers(1, 3), st.integers(0, 9))
def test_every_triple_is_verified_against_sets(dataset, sampler, history, negatives, seed):
    sets = sets_of(dataset)
    closed = allowed(sets, "buy", history)
    items = range(dataset.num_items)
    trained = {user for user, _ in sets["buy"] if any((user, item) not in closed for item in items)}
    options = {"batch_size": 3, "sampler": sampler, "history": history, "negatives": negatives}
    if not trained:
        with pytest.raises(UsageError, match="nothing to train on; .*history=behavior or .*history=target"):
            batches(dataset, seed, **options)
        return
    drawn = batches(dataset, seed, **options)
    found = list(drawn.epoch(1))
    assert len(found) == len(drawn)
    users = [user for batch in found for user in batch.users.tolist()]
    if sampler == "per-user":
        assert sorted(users) == list(range(dataset.num_users))
    elif sampler == "per-edge":
        assert sorted(users) == sorted(dataset.edges["buy"].user.tolist())
    elif sampler == "every-edge":
        assert sorted(users) == sorted(user for name in BEHAVIORS for user in dataset.edges[name].user.tolist())
    elif sampler == "with-replacement":
        assert len(users) == len(dataset.edges["buy"])
        assert set(users) <= trained
    else:
        assert len(found) == -(-len(dataset.edges["buy"]) // 3)
        for batch in found:
            own = batch.users.tolist()
            assert len(set(own)) == len(own) == min(3, len(trained))
            assert set(own) <= trained
    for batch in found:
        for name in BEHAVIORS:
            forbidden = allowed(sets, name, history)
            assert batch.negatives[name].shape == ((len(batch),) if negatives == 1 else (len(batch), negatives))
            rows = zip(
                batch.users.tolist(),
                batch.positives[name].tolist(),
                batch.negatives[name].reshape(len(batch), negatives).tolist(),
                strict=True,
            )
            for user, positive, others in rows:
                has_edge = any((user, item) in sets[name] for item in items)
                has_free = any((user, item) not in forbidden for item in items)
                assert (positive >= 0) == (has_edge and has_free)
                assert all((negative >= 0) == (positive >= 0) for negative in others)
                if positive >= 0:
                    assert (user, positive) in sets[name]
                    assert all((user, negative) not in forbidden for negative in others)


def test_per_edge_uses_every_target_edge_once():
    dataset = make({(0, 0)}, {(0, 1), (0, 2), (1, 0), (2, 3)}, 3, 9)
    drawn = [
        pair
        for batch in batches(dataset, 4, batch_size=2, sampler="per-edge").epoch(1)
        for pair in zip(batch.users.tolist(), batch.positives["buy"].tolist(), strict=True)
    ]
    assert sorted(drawn) == [(0, 1), (0, 2), (1, 0), (2, 3)]


def test_per_edge_shuffles_the_edges():
    """The order is the epoch's own: neither the dataset's nor the one of the epoch before."""
    dataset = make({(0, 0)}, {(user, 1) for user in range(50)}, 50, 9)
    orders = [
        [
            user
            for batch in batches(dataset, batch_size=7, sampler="per-edge").epoch(epoch)
            for user in batch.users.tolist()
        ]
        for epoch in (1, 2)
    ]
    assert orders[0] != orders[1]
    assert list(range(50)) not in orders


def test_every_edge_of_every_behavior_is_a_row_once():
    """The row's own behavior has the edge; under one name for all behaviors that name has it."""
    view, buy = {(0, 0), (0, 1), (1, 2), (2, 3)}, {(0, 1), (0, 2), (1, 0)}
    dataset = make(view, buy, 3, 9)
    edges = sorted([(0, *pair) for pair in view] + [(1, *pair) for pair in buy])
    (batch,) = batches(dataset, batch_size=50, sampler="every-edge").epoch(1)
    own = torch.stack([batch.positives[name] for name in BEHAVIORS])[batch.kinds, torch.arange(len(batch))]
    assert sorted(zip(batch.kinds.tolist(), batch.users.tolist(), own.tolist(), strict=True)) == edges
    training = TrainingOptions(batch_size=3, sampler="every-edge", negatives=4)
    made = TripleBatches(dataset, ("buy",), training, any_of=BEHAVIORS, counts={"buy": 1})
    found = list(made.epoch(1))
    assert len(found) == len(made) == 3
    rows = [
        row
        for batch in found
        for row in zip(batch.kinds.tolist(), batch.users.tolist(), batch.positives[ANY].tolist(), strict=True)
    ]
    assert rows != edges
    assert sorted(rows) == edges
    for batch in found:
        assert batch.negatives[ANY].shape == (len(batch), 4)
        assert batch.negatives["buy"].shape == (len(batch),)
        for user, negatives in zip(batch.users.tolist(), batch.negatives[ANY].tolist(), strict=True):
            assert not {(user, item) for item in negatives} & (view | buy)
        assert all(
            (user, item) in buy for user, item in zip(*(part.tolist() for part in batch.rows("buy")[:2]), strict=True)
        )


def test_pairs_of_any_behavior_are_drawn_as_one():
    num_users = 3000
    view = {(user, item) for user in range(num_users) for item in (0, 1)}
    buy = {(user, item) for user in range(num_users) for item in (1, 2)}
    dataset = make(view, buy, num_users, 6)
    made = TripleBatches(dataset, ("buy",), TrainingOptions(batch_size=num_users), any_of=BEHAVIORS)
    (batch,) = made.epoch(1)
    assert set(batch.positives) == {ANY, "buy"}
    drawn = np.bincount(batch.positives[ANY].numpy(), minlength=6)
    assert drawn[3:].sum() == 0
    assert chi_square(drawn[:3]) < 13.8  # 99.9 % quantile of 2 degrees of freedom: a pair in both counts once


@dataclass(frozen=True, kw_only=True)
class NoisyBatch(TripleBatch):
    noise: torch.Tensor


def test_batches_may_carry_more_than_triples():
    """What is added is drawn from a stream of its own, the same one whenever the epoch is asked for."""
    dataset = make({(0, 0), (1, 1), (2, 2)}, {(0, 1), (1, 3), (2, 0)}, 3, 9)
    plain = batches(dataset, batch_size=2)
    made = ExtendedBatches(plain, lambda b, rng: b.extended(NoisyBatch, noise=torch.from_numpy(rng.random(len(b)))))
    assert len(made) == len(plain) == 2
    noises = []
    for epoch in (1, 1, 2):
        for batch, triples in zip(made.epoch(epoch), plain.epoch(epoch), strict=True):
            assert torch.equal(batch.users, triples.users)
            assert torch.equal(batch.negatives["view"], triples.negatives["view"])
            assert batch.emptied().noise is batch.noise
            assert batch.to("cpu").noise.equal(batch.noise)
        noises.append(torch.cat([batch.noise for batch in made.epoch(epoch)]))
    assert torch.equal(noises[0], noises[1])
    assert not torch.equal(noises[0], noises[2])


def chi_square(counts):
    expected = counts.sum() / len(counts)
    return ((counts - expected) ** 2 / expected).sum()


@pytest.mark.parametrize("negatives", [1, 2])
def test_positives_and_negatives_are_uniform(negatives):
    num_users = 4000
    view = {(user, item) for user in range(num_users) for item in (0, 1, 2)}
    dataset = make(view, {(user, 3) for user in range(num_users)}, num_users, 8)
    (batch,) = batches(dataset, batch_size=num_users, negatives=negatives).epoch(1)
    positives = np.bincount(batch.positives["view"].numpy(), minlength=8)[:3]
    assert chi_square(positives) < 16.3  # 99.9 % quantile of at most 3 degrees of freedom
    drawn = batch.negatives["view"].numpy().reshape(num_users, negatives)
    for column in drawn.T:
        assert chi_square(np.bincount(column, minlength=8)[4:]) < 16.3


@pytest.mark.parametrize("sampler", ["with-replacement", "distinct-users"])
def test_drawn_users_are_uniform_over_those_who_can_be_trained(sampler):
    """Not in proportion to their edges: user 0 has as many as all others together."""
    buys = {(0, item) for item in range(10)} | {(user, 0) for user in range(1, 11)}
    dataset = make({(11, 0)}, buys, 12, 40)  # user 11 has no target edge
    users = np.concatenate(
        [
            batch.users.numpy()
            for epoch in range(1, 201)
            for batch in batches(dataset, batch_size=5, sampler=sampler).epoch(epoch)
        ]
    )
    assert chi_square(np.bincount(users, minlength=11)) < 29.6  # 99.9 % quantile of 10 degrees of freedom
    assert users.max() <= 10


def test_epochs_differ_seeds_differ_and_both_repeat():
    dataset = make({(u, u % 5) for u in range(30)}, {(u, (u + 1) % 5) for u in range(30)}, 30, 50)

    def drawn(seed, epoch, batch_size=7):
        found = list(batches(dataset, seed, batch_size=batch_size).epoch(epoch))
        return np.concatenate([np.stack([b.users, b.positives["buy"], b.negatives["view"]]) for b in found], axis=1)

    assert np.array_equal(drawn(1, 3), drawn(1, 3))
    assert np.array_equal(drawn(1, 3), drawn(1, 3, batch_size=100))
    assert not np.array_equal(drawn(1, 3), drawn(1, 4))
    assert not np.array_equal(drawn(1, 3), drawn(2, 3))


def test_user_who_holds_every_item_gets_no_triple():
    dataset = make({(0, 0), (0, 1), (1, 0)}, {(0, 0), (1, 0)}, 2, 2)
    (batch,) = batches(dataset).epoch(1)
    rows = {user: row for row, user in enumerate(batch.users.tolist())}
    assert batch.positives["buy"][rows[0]] == batch.negatives["buy"][rows[0]] == -1
    assert batch.negatives["buy"][rows[1]] == 1


def test_last_free_item_is_found():
    view = {(0, item) for item in range(999)}
    dataset = make(view, {(0, 0)}, 1, 1000)
    (batch,) = batches(dataset).epoch(1)
    assert batch.negatives["buy"].tolist() == [999]


def test_nobody_to_sample_is_refused_before_training():
    """Everybody touched everything: no item is a negative, until the history is smaller."""
    everything = {(user, item) for user in range(3) for item in range(4)}
    dataset = make(everything, {(0, 1), (1, 2)}, 3, 4)
    message = (
        r"no user of 'made' has both a 'buy' and an item outside the history \(all\), so there is nothing to train on; "
        r"choose a smaller history: --set history=behavior or --set history=target"
    )
    for sampler in SAMPLERS:
        with pytest.raises(UsageError, match=message):
            batches(dataset, sampler=sampler)
        for history in ("behavior", "target"):
            (batch, *_) = batches(dataset, sampler=sampler, history=history).epoch(1)
            assert (batch.positives["buy"] >= 0).any()


def test_errors():
    for options, message in (
        ({"sampler": "per-usr"}, "sampler of the training options 'per-usr'; did you mean 'per-user'"),
        ({"history": "everything"}, "history of the training options 'everything'"),
    ):
        with pytest.raises(UnknownNameError, match=message):
            TrainingOptions(**options)
    with pytest.raises(UsageError, match="batch_size of the training options must be a whole number from 1 .*got 0"):
        TrainingOptions(batch_size=0)
