"""The sampler against set membership, and its distributions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.training.sampler import TripleSampler

BEHAVIORS = ("view", "buy")


def make(view, buy, num_users, num_items):
    def pairs(cells):
        users, items = zip(*sorted(cells), strict=True)
        return Pairs(np.array(users), np.array(items))

    return MultiBehaviorDataset(
        "made", Vocabulary(size=num_users), Vocabulary(size=num_items), {"view": pairs(view), "buy": pairs(buy)}, "buy"
    )


@st.composite
def datasets(draw):
    num_users, num_items = draw(st.integers(1, 8)), draw(st.integers(1, 7))
    cell = st.tuples(st.integers(0, num_users - 1), st.integers(0, num_items - 1))
    view, buy = (draw(st.sets(cell, min_size=1, max_size=20)) for _ in BEHAVIORS)
    return make(view, buy, num_users, num_items)


@given(
    datasets(),
    st.sampled_from(["per-user", "per-edge"]),
    st.sampled_from(["all", "behavior", "target"]),
    st.integers(0, 9),
)
def test_every_triple_is_verified_against_sets(dataset, mode, history, seed):
    sampler = TripleSampler(dataset, BEHAVIORS, batch_size=3, mode=mode, history=history, rng=seed)
    sets = {
        name: set(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True)) for name, pairs in dataset.edges.items()
    }
    batches = list(sampler.epoch(1))
    assert len(batches) == len(sampler)
    users = [user for batch in batches for user in batch.users.tolist()]
    if mode == "per-user":
        assert sorted(users) == list(range(dataset.num_users))
    else:
        assert sorted(users) == sorted(dataset.edges["buy"].user.tolist())
    for batch in batches:
        for name in BEHAVIORS:
            forbidden = {"all": sets["view"] | sets["buy"], "behavior": sets[name], "target": sets["buy"]}[history]
            rows = zip(
                batch.users.tolist(), batch.positives[name].tolist(), batch.negatives[name].tolist(), strict=True
            )
            for user, positive, negative in rows:
                has_edge = any((user, item) in sets[name] for item in range(dataset.num_items))
                has_free = any((user, item) not in forbidden for item in range(dataset.num_items))
                assert (positive >= 0) == (negative >= 0) == (has_edge and has_free)
                if positive >= 0:
                    assert (user, positive) in sets[name]
                    assert (user, negative) not in forbidden


def test_per_edge_uses_every_target_edge_once():
    dataset = make({(0, 0)}, {(0, 1), (0, 2), (1, 0), (2, 3)}, 3, 9)
    sampler = TripleSampler(dataset, BEHAVIORS, batch_size=2, mode="per-edge", rng=4)
    drawn = [pair for b in sampler.epoch(1) for pair in zip(b.users.tolist(), b.positives["buy"].tolist(), strict=True)]
    assert sorted(drawn) == [(0, 1), (0, 2), (1, 0), (2, 3)]


def test_positives_and_negatives_are_uniform():
    num_users = 4000
    view = {(user, item) for user in range(num_users) for item in (0, 1, 2)}
    dataset = make(view, {(user, 3) for user in range(num_users)}, num_users, 8)
    (batch,) = TripleSampler(dataset, BEHAVIORS, batch_size=num_users, rng=0).epoch(1)
    positives = np.bincount(batch.positives["view"].numpy(), minlength=8)[:3]
    negatives = np.bincount(batch.negatives["view"].numpy(), minlength=8)[4:]
    for counts in (positives, negatives):
        expected = num_users / len(counts)
        statistic = ((counts - expected) ** 2 / expected).sum()  # chi-square, at most 3 degrees of freedom
        assert statistic < 16.3  # 99.9 % quantile


def test_epochs_differ_seeds_differ_and_both_repeat():
    dataset = make({(u, u % 5) for u in range(30)}, {(u, (u + 1) % 5) for u in range(30)}, 30, 50)

    def drawn(seed, epoch, batch_size=7):
        batches = list(TripleSampler(dataset, BEHAVIORS, batch_size=batch_size, rng=seed).epoch(epoch))
        return np.concatenate([np.stack([b.users, b.positives["buy"], b.negatives["view"]]) for b in batches], axis=1)

    assert np.array_equal(drawn(1, 3), drawn(1, 3))
    assert np.array_equal(drawn(1, 3), drawn(1, 3, batch_size=100))
    assert not np.array_equal(drawn(1, 3), drawn(1, 4))
    assert not np.array_equal(drawn(1, 3), drawn(2, 3))


def test_user_who_holds_every_item_gets_no_triple():
    dataset = make({(0, 0), (0, 1), (1, 0)}, {(0, 0), (1, 0)}, 2, 2)
    (batch,) = TripleSampler(dataset, BEHAVIORS, rng=0).epoch(1)
    rows = {user: row for row, user in enumerate(batch.users.tolist())}
    assert batch.positives["buy"][rows[0]] == batch.negatives["buy"][rows[0]] == -1
    assert batch.negatives["buy"][rows[1]] == 1


def test_last_free_item_is_found():
    view = {(0, item) for item in range(999)}
    dataset = make(view, {(0, 0)}, 1, 1000)
    (batch,) = TripleSampler(dataset, BEHAVIORS, rng=0).epoch(1)
    assert batch.negatives["buy"].tolist() == [999]


def test_errors():
    dataset = make({(0, 0)}, {(0, 0)}, 1, 2)
    with pytest.raises(UnknownNameError, match="unknown sampler 'per-usr'; did you mean 'per-user'"):
        TripleSampler(dataset, BEHAVIORS, mode="per-usr")
    with pytest.raises(UnknownNameError, match="negative history"):
        TripleSampler(dataset, BEHAVIORS, history="everything")
    with pytest.raises(UsageError, match="batch_size must be positive"):
        TripleSampler(dataset, BEHAVIORS, batch_size=0)
