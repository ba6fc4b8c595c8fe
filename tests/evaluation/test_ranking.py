"""Ranks against a sort of every user's candidates; blocks, buffers, ties, masks, NaN."""

import re
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mbgraph import _kernels
from mbgraph.data.interactions import CSR
from mbgraph.errors import RunError, UnknownNameError, UsageError
from mbgraph.evaluation import ranking
from mbgraph.evaluation.metrics import per_user_metrics
from mbgraph.evaluation.options import TIES
from mbgraph.evaluation.ranking import HeldOut, block_rows, held_out_ranks
from mbgraph.evaluation.scorers import EmbeddingScorer, Scorer

GOLDEN = "rmbrec"


class Table:
    """A scorer that reads its scores from a (U, I) table."""

    def __init__(self, scores):
        self.table = torch.as_tensor(scores)
        self.num_users, self.num_items = self.table.shape

    def scores(self, users):
        return self.table[users]


@pytest.fixture(params=["compiled", "numpy"])
def counting(request, monkeypatch):
    """Both ways to count."""
    if request.param == "compiled" and not _kernels.available:
        pytest.skip("numba is not installed")
    monkeypatch.setattr("mbgraph._kernels.available", request.param == "compiled")


def naive(scores, held, masked):
    """Rank by comparing; held-out items of one score stand first, last, or half way among the others of that score."""
    ranks = {ties: [] for ties in TIES}
    for user, item in zip(held.user, held.item, strict=True):
        own = held.item[held.user == user].tolist()
        candidates = [i for i in range(scores.shape[1]) if i not in masked.get(user, ())]
        score = scores[user, item]
        higher = sum(scores[user, i] > score for i in candidates)
        before = sum(scores[user, i] == score for i in own[: own.index(item)])
        others = sum(scores[user, i] == score for i in candidates if i not in own)
        for ties, behind in (("optimistic", 0), ("realistic", others / 2), ("pessimistic", others)):
            ranks[ties].append(1 + higher + before + behind)
    return ranks


def question(rng, num_users, num_items, *, most=3, masks=True):
    """Random held-out pairs, several per user, and masked items beside them."""
    pairs, masked = [], {}
    for user in range(num_users):
        items = rng.permutation(num_items)
        count = int(rng.integers(0, most + 1))
        pairs += [(user, item) for item in sorted(items[:count])]
        masked[user] = set(items[count : count + int(rng.integers(0, 4))].tolist()) if masks else set()
    pairs = pairs or [(0, 0)]
    user, item = np.array(pairs, np.int64).T
    masked[0] -= {0}
    cells = np.array([(u, i) for u, items in masked.items() for i in items], np.int64).reshape(-1, 2)
    csr = CSR.from_pairs(cells[:, 0], cells[:, 1], num_users) if masks else None
    return HeldOut(user, item, csr), masked


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("masks", [True, False])
def test_against_a_loop(counting, dtype, masks):
    rng = np.random.default_rng(5)
    for _ in range(5):
        scores = rng.integers(0, 5, (13, 11)).astype(dtype)  # many ties
        held, masked = question(rng, 13, 11, masks=masks)
        for ties, expected in naive(scores, held, masked).items():
            found = held_out_ranks(Table(scores), {"test": held}, ties)["test"]
            np.testing.assert_array_equal(found, expected, err_msg=ties)


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(
    ("num_users", "num_items", "width", "most"),
    [(13, 11, 3, 3), (3, 130, 1, 2), (40, 125, 64, 3), (33, 121, 6, 40), (300, 12, 5, 1)],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_products_against_a_loop(counting, num_users, num_items, width, most, masks, threads):
    """Small integers, so that products are exact and many are equal; counts that fill tiles and lanes or do not."""
    rng = np.random.default_rng(6)
    users, items = (rng.integers(-1, 2, (count, width)).astype(np.float32) for count in (num_users, num_items))
    held, masked = question(rng, num_users, num_items, most=most, masks=masks)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for ties, expected in naive(users @ items.T, held, masked).items():
            scorer = EmbeddingScorer(torch.tensor(users), torch.tensor(items))
            np.testing.assert_array_equal(held_out_ranks(scorer, {"test": held}, ties)["test"], expected, err_msg=ties)
    finally:
        torch.set_num_threads(before)


def test_products_of_any_memory_and_any_float(counting):
    """Columns of a wider table are no rows one after the other; float64 is ranked as such."""
    rng = np.random.default_rng(7)
    users, items = (torch.from_numpy(rng.standard_normal((count, 12))) for count in (30, 50))
    held, masked = question(rng, 30, 50)
    expected = naive((users[:, ::2] @ items[:, ::2].T).numpy(), held, masked)["realistic"]
    for dtype in (torch.float32, torch.float64):
        scorer = EmbeddingScorer(users.to(dtype)[:, ::2], items.to(dtype)[:, ::2])
        np.testing.assert_array_equal(held_out_ranks(scorer, {"test": held})["test"], expected)


@pytest.mark.parametrize("ties", TIES)
def test_a_masked_held_out_item_does_not_compete_with_itself(counting, ties):
    """u0 masks its best, i0, and i1, which it holds out and which ties with i2; u1 masks its best, i1, held out too."""
    scores = torch.tensor([[3.0, 2.0, 2.0, 1.0, 0.0], [1.0, 4.0, 2.0, 3.0, 0.0]])
    masked = CSR.from_pairs(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    held = HeldOut(np.array([0, 1]), np.array([1, 1]), masked)
    expected = {"optimistic": [1.0, 1.0], "realistic": [1.5, 1.0], "pessimistic": [2.0, 1.0]}[ties]
    for scorer in (Table(scores), EmbeddingScorer(scores, torch.eye(5))):
        assert held_out_ranks(scorer, {"test": held}, ties)["test"].tolist() == expected


def test_nothing_to_rank(counting):
    nobody = HeldOut(np.empty(0, np.int64), np.empty(0, np.int64), None)
    assert held_out_ranks(random_embeddings(), {"test": nobody})["test"].shape == (0,)
    assert held_out_ranks(random_embeddings(), {}) == {}


@given(st.integers(0, 10**6))
def test_ties_never_push_a_metric_over_one(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 2, (4, 6)).astype(np.float32)
    held, _ = question(rng, 4, 6, most=5)
    users, owner = np.unique(held.user, return_inverse=True)
    total = {}
    for ties in TIES:
        ranks = held_out_ranks(Table(scores), {"test": held}, ties)["test"]
        for values in per_user_metrics(ranks, owner, len(users), [1, 3, 6]).values():
            assert (values <= 1 + 1e-12).all()
        total[ties] = ranks
    np.testing.assert_allclose(total["realistic"], (total["optimistic"] + total["pessimistic"]) / 2)


class Own(EmbeddingScorer):
    """A subclass with a way of its own, whose scores are asked for block by block."""

    def scores_into(self, users, out):
        return super().scores_into(users, out)


def random_embeddings(users=500, items=700, width=16):
    generator = torch.Generator().manual_seed(3)
    return EmbeddingScorer(
        torch.randn(users, width, generator=generator), torch.randn(items, width, generator=generator)
    )


@pytest.mark.parametrize("chunk_size", [1, 7, 256, 1000])
@pytest.mark.parametrize("kind", [EmbeddingScorer, Own])
def test_ranks_do_not_depend_on_the_chunk_size(monkeypatch, kind, chunk_size):
    monkeypatch.setattr(ranking, "block_rows", lambda num_items: 32)
    scorer = kind(random_embeddings().users, random_embeddings().items)
    held, _ = question(np.random.default_rng(0), 500, 700)
    usual = held_out_ranks(scorer, {"test": held})["test"]
    np.testing.assert_array_equal(held_out_ranks(scorer, {"test": held}, chunk_size=chunk_size)["test"], usual)


def test_a_scorer_without_a_buffer_gives_the_same(monkeypatch):
    monkeypatch.setattr(ranking, "block_rows", lambda num_items: 32)
    scorer = random_embeddings()
    plain = Table(torch.cat([scorer.scores(rows) for rows in torch.arange(500).split(32)]))
    held, _ = question(np.random.default_rng(1), 500, 700)
    for other in (scorer, Own(scorer.users, scorer.items)):
        np.testing.assert_array_equal(
            held_out_ranks(plain, {"test": held}, chunk_size=90)["test"], held_out_ranks(other, {"test": held})["test"]
        )


def test_splits_share_one_pass():
    class Counting(Table):
        asked = ()

        def scores(self, users):
            self.asked += (users.tolist(),)
            return super().scores(users)

    rng = np.random.default_rng(2)
    scores = rng.random((20, 9)).astype(np.float32)
    (valid, _), (test, _) = question(rng, 20, 9), question(rng, 20, 9)
    scorer = Counting(scores)
    both = held_out_ranks(scorer, {"valid": valid, "test": test})
    (asked,) = scorer.asked
    assert sorted(set(asked)) == np.union1d(valid.user, test.user).tolist()
    for name, part in (("valid", valid), ("test", test)):
        np.testing.assert_array_equal(both[name], held_out_ranks(Table(scores), {name: part})[name])


def test_splits_of_products_are_ranked_as_each_alone(counting):
    rng = np.random.default_rng(3)
    splits = {name: question(rng, 60, 40)[0] for name in ("valid", "test", "other")}
    scorer = random_embeddings(60, 40, 5)
    together = held_out_ranks(scorer, splits)
    assert list(together) == list(splits)
    for name, part in splits.items():
        np.testing.assert_array_equal(together[name], held_out_ranks(scorer, {name: part})[name])


@pytest.mark.parametrize("kind", [EmbeddingScorer, Own])
def test_ranks_do_not_depend_on_who_else_is_ranked(kind):
    """Items are permutations of one vector: their scores differ by rounding alone, and so do all ranks."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(64, generator=generator)
    items = torch.stack([base[torch.randperm(64, generator=generator)] for _ in range(300)])
    scorer = kind(torch.ones(1500, 64), items)
    everybody = HeldOut(np.arange(1500), np.full(1500, 5), None)
    usual = held_out_ranks(scorer, {"test": everybody})["test"]
    assert len(set(usual)) == 1
    for rows in ([0], [0, 7], [1, 2, 1400], range(40)):
        rows = np.array(rows)
        found = held_out_ranks(scorer, {"test": HeldOut(rows, everybody.item[rows], None)})["test"]
        np.testing.assert_array_equal(found, usual[rows])


@pytest.mark.parametrize("size", [1e20, 3e38])
def test_finite_embeddings_whose_products_overflow(size):
    """The score would be inf - inf: NaN, which no item beats."""
    users, items = torch.full((1, 2), size), torch.tensor([[size, -size], [1.0, 1.0]])
    with pytest.raises(RunError, match="so large that scores overflow; train with a lower"):
        EmbeddingScorer(users, items)
    assert EmbeddingScorer(users.double(), items.double()).num_items == 2


def test_only_products_that_may_overflow_are_refused():
    """Bounds are products of the longest rows, whatever their squares and however many rows there are."""
    large, small = torch.full((1, 2), 1e20), torch.full((3, 2), 1e-20)
    assert EmbeddingScorer(large, small).scores(torch.tensor([0])).tolist() == [pytest.approx([2.0] * 3)]
    many = torch.full((10_000, 1), 1e19)
    assert EmbeddingScorer(many, many).num_users == 10_000
    assert EmbeddingScorer(torch.ones(0, 2), torch.ones(3, 2)).num_users == 0


def test_a_scorer_holds_numbers_and_no_graph():
    scorer = EmbeddingScorer(torch.ones(2, 3, requires_grad=True), torch.ones(4, 3, requires_grad=True))
    assert not scorer.users.requires_grad
    assert not scorer.items.requires_grad
    out = torch.empty(4, 2).T
    assert scorer.scores_into(torch.tensor([1, 0]), out) is out
    assert out.tolist() == scorer.scores(torch.tensor([1, 0])).tolist() == [[3.0] * 4] * 2


def test_a_subclass_may_score_in_its_own_way(counting):
    """Ranks are those of its own scores, not of the products that it inherits."""

    class Broken(EmbeddingScorer):
        def scores_into(self, users, out):
            return out.fill_(torch.nan)

    held = HeldOut(np.array([0]), np.array([0]), None)
    with pytest.raises(RunError, match="NaN scores"):
        held_out_ranks(Broken(torch.ones(2, 2), torch.ones(3, 2)), {"test": held})
    users, items = torch.ones(2, 1), torch.tensor([[3.0], [2.0], [1.0]])
    assert held_out_ranks(EmbeddingScorer(users, items), {"test": held})["test"].tolist() == [1.0]

    class Negative(EmbeddingScorer):
        def scores_into(self, users, out):
            return super().scores_into(users, out).neg_()

    assert held_out_ranks(Negative(users, items), {"test": held})["test"].tolist() == [3.0]


def test_a_block_is_some_megabytes():
    """4 M scores, but 256 to 1,024 rows; never more than 16 M scores, unless four rows are; powers of two."""
    assert block_rows(39_493) == 256
    assert block_rows(7_977) == 512
    for items, rows in ((1, 1024), (4096, 1024), (4097, 512), (8192, 512), (8193, 256), (65_536, 256), (65_537, 128)):
        assert block_rows(items) == rows, items
    for items, rows in ((10**6, 16), (2**21, 8), (2**22, 4), (2**22 + 1, 4), (10**9, 4)):
        assert block_rows(items) == rows, items


@pytest.mark.parametrize(("chunk_size", "rows"), [(None, 32), (1, 32), (32, 32), (33, 64), (90, 96)])
def test_a_chunk_is_as_many_whole_blocks_as_it_takes(monkeypatch, chunk_size, rows):
    monkeypatch.setattr(ranking, "block_rows", lambda num_items: 32)
    counted, real = [], ranking._count
    monkeypatch.setattr(ranking, "_count", lambda scores, *rest: counted.append(len(scores)) or real(scores, *rest))
    held = HeldOut(np.arange(192), np.zeros(192, np.int64), None)
    scores = torch.ones(192, 3)
    held_out_ranks(Table(scores), {"test": held}, chunk_size=chunk_size)
    assert counted == [rows] * (192 // rows)
    counted.clear()
    held_out_ranks(Own(scores, scores[:3]), {"test": held}, chunk_size=chunk_size)
    assert counted == [32] * 6  # its buffer holds one block


def test_nan_is_an_error():
    scores = np.zeros((3, 4), np.float32)
    scores[1, 2] = np.nan
    held = HeldOut(np.array([0, 1]), np.array([0, 0]), None)
    with pytest.raises(RunError, match="NaN scores; train with a lower"):
        held_out_ranks(Table(scores), {"test": held})
    with pytest.raises(RunError, match="user embeddings are not finite"):
        EmbeddingScorer(torch.full((2, 2), torch.nan), torch.ones(3, 2))
    with pytest.raises(RunError, match="item embeddings are not finite"):
        EmbeddingScorer(torch.ones(3, 2), torch.full((2, 2), -torch.inf))


def test_arguments_are_checked():
    held = HeldOut(np.array([0]), np.array([0]), None)
    scorer = Table(np.zeros((1, 2), np.float32))
    assert isinstance(scorer, Scorer)
    with pytest.raises(UnknownNameError, match=r"unknown tie policy 'realist'; did you mean 'realistic'"):
        held_out_ranks(scorer, {"test": held}, "realist")
    with pytest.raises(UsageError, match="chunk_size must be positive"):
        held_out_ranks(scorer, {"test": held}, chunk_size=0)
    with pytest.raises(UnknownNameError, match=r"unknown tie policy 'realist'; did you mean 'realistic'"):
        ranking.rank_from_counts(np.zeros(1), np.zeros(1), "realist")
    for users, items in ((2, 3), (2, 4)), ((2, 3), (3,)), ((3,), (2, 3)), ((2, 3), (2, 3, 1)):
        with pytest.raises(
            UsageError, match=rf"embeddings must be .* got {re.escape(str(users))} and {re.escape(str(items))}"
        ):
            EmbeddingScorer(torch.ones(users), torch.ones(items))
    with pytest.raises(FrozenInstanceError):
        held.user = None


@pytest.mark.skipif(not _kernels.available, reason="torch checks the numbers itself")
def test_pairs_beyond_the_embeddings():
    scorer = EmbeddingScorer(torch.ones(2, 3), torch.ones(4, 3))
    for side, user, item in (("user", 2, 0), ("user", -1, 0), ("item", 0, 4)):
        with pytest.raises(UsageError, match=f"held-out pairs name {side} {max(user, item, key=abs)}, the scorer has"):
            held_out_ranks(scorer, {"test": HeldOut(np.array([user]), np.array([item]), None)})


def test_the_published_ranking(arrays, counting):
    """HR and NDCG of the published implementation on its own score matrix."""
    scores, test, buy = arrays["score_matrix"], arrays["test_edges"], arrays[f"edges_{arrays['behaviors'][-1]}"]
    test = test[np.lexsort((test[:, 1], test[:, 0]))]
    held = HeldOut(test[:, 0], test[:, 1], CSR.from_pairs(buy[:, 0], buy[:, 1], len(scores)))
    ranks = held_out_ranks(Table(scores), {"test": held})["test"]
    users, owner = np.unique(held.user, return_inverse=True)
    values = per_user_metrics(ranks, owner, len(users), [5, 10])
    names = ["HR@5", "HR@10", "NDCG@5", "NDCG@10"]
    assert [values[name].mean() for name in names] == pytest.approx(arrays["metric_values"].tolist(), abs=1e-7)
