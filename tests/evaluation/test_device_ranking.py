"""Counting where the scores are, on the CPU: against the kernels' ranks and against a loop, whatever the blocks."""

import numpy as np
import pytest
import torch

from mbgraph.data.interactions import CSR
from mbgraph.errors import RunError, UsageError
from mbgraph.evaluation import device_ranking, ranking
from mbgraph.evaluation.options import TIES
from mbgraph.evaluation.ranking import HeldOut, held_out_ranks
from mbgraph.evaluation.scorers import BlockScorer, EmbeddingScorer, PairBonusScorer

CPU = torch.device("cpu")
SIZES = [{}, {"users_at_a_time": 1}, {"users_at_a_time": 3, "columns": 4}, {"users_at_a_time": 16, "columns": 1}]


def whole_tables(rng, num_users, num_items, width=4):
    """Embeddings of small whole numbers: products are exact, and many are equal."""
    return (
        torch.from_numpy(rng.integers(-1, 2, (count, width)).astype(np.float32)) for count in (num_users, num_items)
    )


def question(rng, num_users, num_items, most=3, masks=True):
    """Held-out pairs, users ascending, and masked items, now and then a held-out one among them."""
    pairs = [(u, i) for u in range(num_users) for i in sorted(rng.permutation(num_items)[: rng.integers(0, most + 1)])]
    user, item = np.array(pairs or [(0, 0)], np.int64).T
    if not masks:
        return HeldOut(user, item, None)
    return HeldOut(user, item, CSR.from_pairs(*np.nonzero(rng.random((num_users, num_items)) < 0.3), num_users))


def naive(scores, held, ties):
    """Rank a pair by comparing it with every candidate, one at a time."""
    ranks = []
    for user, item in zip(held.user.tolist(), held.item.tolist(), strict=True):
        own = held.item[held.user == user].tolist()
        barred = set() if held.masked is None else set(held.masked.gather(np.array([user]))[1].tolist())
        others = [i for i in range(scores.shape[1]) if i not in barred and i != item]
        score = scores[user, item]
        higher = sum(scores[user, i] > score for i in others)
        before = sum(scores[user, i] == score for i in own[: own.index(item)])
        same = sum(scores[user, i] == score for i in others if i not in own)
        ranks.append(1 + higher + before + {"optimistic": 0, "realistic": same / 2, "pessimistic": same}[ties])
    return ranks


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("masks", [True, False])
def test_against_a_loop_and_the_kernels(sizes, ties, masks):
    rng = np.random.default_rng(3)
    for _ in range(4):
        users, items = whole_tables(rng, 13, 11)
        scorer = EmbeddingScorer(users, items)
        held = question(rng, 13, 11, masks=False)
        if masks:  # a held-out item that is masked is nobody else's competitor; the loop knows none
            barred = rng.random((13, 11)) < 0.3
            barred[held.user, held.item] = False
            held = HeldOut(held.user, held.item, CSR.from_pairs(*np.nonzero(barred), 13))
        made = ranking._device_ranks(scorer, {"test": held}, ties, CPU, **sizes)["test"]
        assert made.tolist() == naive((users @ items.T).numpy(), held, ties)
        assert made.tolist() == held_out_ranks(scorer, {"test": held}, ties)["test"].tolist()


@pytest.mark.parametrize("sizes", SIZES)
def test_masked_held_out_items_and_several_splits(sizes):
    rng = np.random.default_rng(8)
    scorer = EmbeddingScorer(*whole_tables(rng, 40, 17))
    splits = {"valid": question(rng, 40, 17), "test": question(rng, 40, 17, most=9), "none": question(rng, 40, 17, 0)}
    made = ranking._device_ranks(scorer, splits, "realistic", CPU, **sizes)
    for name, ranks in held_out_ranks(scorer, splits).items():
        assert made[name].tolist() == ranks.tolist(), name


@pytest.mark.parametrize("kind", ["bonus", "function", "double"])
def test_scorers_that_are_no_products(kind):
    rng = np.random.default_rng(4)
    users, items = whole_tables(rng, 30, 12)
    pairs = CSR.from_pairs(*np.nonzero(rng.random((30, 12)) < 0.2), 30)
    scorer = {
        "bonus": PairBonusScorer(users, items, pairs, rng.integers(-2, 3, len(pairs.indices))),
        "function": BlockScorer(lambda rows: users[rows] @ items.T, 30, 12),
        "double": EmbeddingScorer(users.double(), items.double()),
    }[kind]
    splits = {"valid": question(rng, 30, 12), "test": question(rng, 30, 12)}
    made = ranking._device_ranks(scorer, splits, "realistic", CPU, users_at_a_time=7)
    for name, ranks in held_out_ranks(scorer, splits).items():
        assert made[name].tolist() == ranks.tolist(), name


def test_rounding_does_not_part_equal_items():
    """The same row twice ties in every block, also where the last block of items is filled up."""
    rng = torch.Generator().manual_seed(5)
    users, items = torch.randn(50, 64, generator=rng), torch.randn(90, 64, generator=rng)
    items[89], items[40] = items[0], items[0]
    held = HeldOut(np.arange(50), np.zeros(50, np.int64), None)
    made = [
        ranking._device_ranks(EmbeddingScorer(users, items), {"test": held}, ties, CPU, users_at_a_time=16, columns=40)
        for ties in ("optimistic", "pessimistic")
    ]
    assert (made[1]["test"] - made[0]["test"]).tolist() == [2.0] * 50


def test_nothing_to_rank_and_what_is_refused():
    scorer = EmbeddingScorer(torch.ones(3, 2), torch.ones(4, 2))
    nothing = HeldOut(np.empty(0, np.int64), np.empty(0, np.int64), None)
    assert ranking._device_ranks(scorer, {"test": nothing}, "realistic", CPU)["test"].tolist() == []
    with pytest.raises(UsageError, match="held-out pairs name item 4, the scorer has 4 items"):
        ranking._device_ranks(scorer, {"test": HeldOut(np.array([0]), np.array([4]), None)}, "realistic", CPU)
    bad = BlockScorer(lambda rows: torch.full((len(rows), 4), torch.nan), 3, 4)
    with pytest.raises(RunError, match="the model gives NaN scores; train with a lower --lr"):
        ranking._device_ranks(bad, {"test": HeldOut(np.array([0]), np.array([1]), None)}, "realistic", CPU)


def test_no_block_is_larger_than_it_says(monkeypatch):
    """Of 1,000 users and 300 items 8 x 50 scores at a time, and each block of one shape."""
    seen = set()
    real = device_ranking._block

    def watched(*arguments):
        scores = real(*arguments)
        seen.add(tuple(scores.shape))
        return scores

    monkeypatch.setattr(device_ranking, "_block", watched)
    rng = np.random.default_rng(0)
    scorer = EmbeddingScorer(*whole_tables(rng, 1001, 307))
    held = question(rng, 1001, 307)
    made = ranking._device_ranks(scorer, {"test": held}, "realistic", CPU, users_at_a_time=8, columns=50)["test"]
    assert seen == {(8, 50)}
    assert made.tolist() == held_out_ranks(scorer, {"test": held})["test"].tolist()
