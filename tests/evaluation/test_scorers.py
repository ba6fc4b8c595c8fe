"""Scorers: products with bonuses on pairs against a loop, blocks from a function, and what each of them serves."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mbgraph as mb
from mbgraph import _kernels
from mbgraph.data.interactions import CSR
from mbgraph.errors import RunError, UsageError
from mbgraph.evaluation.evaluate import evaluate
from mbgraph.evaluation.options import TIES
from mbgraph.evaluation.ranking import HeldOut, held_out_ranks
from mbgraph.evaluation.scorers import BlockScorer, EmbeddingScorer, PairBonusScorer, Scorer
from mbgraph.models import EmbeddingRecommender, Encoded


@pytest.fixture(params=["compiled", "plain"])
def path(request, monkeypatch):
    """Both ways to rank."""
    if request.param == "compiled" and not _kernels.available:
        pytest.skip("numba is not installed")
    monkeypatch.setattr("mbgraph._kernels.available", request.param == "compiled")
    return request.param


def lists_of(cells, num_users):
    users, items = np.array(sorted(cells), np.int64).reshape(-1, 2).T
    return CSR.from_pairs(users, items, num_users)


def made(rng, num_users, num_items, width, share=0.3, barred=0.2):
    """Small whole numbers and bonuses of quarters, so that sums are exact and many tie; some pairs are barred."""
    users, items = (rng.integers(-1, 2, (count, width)).astype(np.float32) for count in (num_users, num_items))
    cells = [tuple(cell) for cell in np.argwhere(rng.random((num_users, num_items)) < share)]
    bonus = rng.integers(-4, 9, len(cells)) / 4
    bonus[rng.random(len(cells)) < barred] = -np.inf
    scorer = PairBonusScorer(torch.tensor(users), torch.tensor(items), lists_of(cells, num_users), bonus)
    scores = users @ items.T
    for (user, item), value in zip(sorted(cells), bonus, strict=True):
        scores[user, item] += value
    return scorer, scores


def question(rng, num_users, num_items, most=4, has_masks=True):
    """Held-out pairs, some of them masked themselves, and masks."""
    pairs, masked = [], set()
    for user in range(num_users):
        order = rng.permutation(num_items)
        pairs += [(user, int(item)) for item in sorted(order[: rng.integers(0, most + 1)])]
        masked |= {(user, int(item)) for item in rng.permutation(num_items)[: rng.integers(0, 5)]}
    pairs = pairs or [(0, 0)]
    return HeldOut(*np.array(pairs, np.int64).T, lists_of(masked, num_users) if has_masks else None)


def naive(scores, held, ties):
    """One pair at a time: who scores higher, who the same; held-out items that tie stand one behind the other."""
    ranks, before = [], {}
    masked = [set() if held.masked is None else set(held.masked.row(user).tolist()) for user in range(len(scores))]
    for user, item in zip(held.user.tolist(), held.item.tolist(), strict=True):
        own = scores[user, item]
        others = [i for i in range(scores.shape[1]) if i != item and i not in masked[user]]
        higher = sum(scores[user, i] > own for i in others)
        mine = {int(i) for i in held.item[held.user == user]}
        level = sum(scores[user, i] == own for i in others if i not in mine)
        place = before.setdefault((user, own), 0)
        before[user, own] += 1
        ranks.append(1 + higher + place + {"optimistic": 0, "realistic": level / 2, "pessimistic": level}[ties])
    return np.array(ranks)


def unmasked(held):
    """Leave held-out pairs that are masked out of the question: how such ties are shared is another matter."""
    if held.masked is None:
        return held
    keep = [item not in held.masked.row(user) for user, item in zip(held.user, held.item, strict=True)]
    return HeldOut(held.user[keep], held.item[keep], held.masked)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("has_masks", [True, False])
@pytest.mark.parametrize(("num_users", "num_items", "width"), [(13, 11, 3), (3, 130, 1), (40, 25, 5), (33, 61, 6)])
def test_ranks_with_bonuses_equal_the_loop(path, num_users, num_items, width, has_masks, ties):
    rng = np.random.default_rng(7)
    for share in (0.0, 0.3, 1.0):
        scorer, scores = made(rng, num_users, num_items, width, share)
        held = unmasked(question(rng, num_users, num_items, has_masks=has_masks))
        found = held_out_ranks(scorer, {"test": held}, ties)["test"]
        np.testing.assert_array_equal(found, naive(scores, held, ties))


@given(st.integers(0, 10**6), st.sampled_from(TIES), st.booleans())
def test_both_ways_to_rank_agree(seed, ties, has_masks):
    """Also where a held-out pair is masked itself, or barred, or all its user's pairs are."""
    rng = np.random.default_rng(seed)
    num_users, num_items = rng.integers(1, 9, 2)
    scorer, _ = made(rng, num_users, num_items, 3, share=0.6, barred=0.5)
    splits = {name: question(rng, num_users, num_items, 3, has_masks) for name in ("valid", "test")}
    found = held_out_ranks(scorer, splits, ties)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mbgraph._kernels.available", False)
        plain = held_out_ranks(scorer, splits, ties)
    for name in splits:
        np.testing.assert_array_equal(found[name], plain[name])


def test_by_hand(path):
    """Products 3 2 1 0; the user's own edge lifts item 3 to 5, item 1 ties with 0, item 0 is barred in the second."""
    users, items = torch.ones(2, 1), torch.tensor([[3.0], [2.0], [1.0], [0.0]])
    pairs = lists_of([(0, 1), (0, 3), (1, 0)], 2)
    scorer = PairBonusScorer(users, items, pairs, [1.0, 5.0, -np.inf])
    assert scorer.scores(torch.tensor([0, 1])).tolist() == [[3, 3, 1, 5], [-np.inf, 2, 1, 0]]
    held = HeldOut(np.array([0, 0, 0, 1, 1]), np.array([0, 2, 3, 0, 1]), None)
    assert held_out_ranks(scorer, {"test": held}, "realistic")["test"].tolist() == [2.5, 4, 1, 4, 1]
    assert scorer.bonus_of(np.array([0, 0, 1]), np.array([3, 2, 0])).tolist() == [5, 0, -np.inf]


def test_bonuses_of_masked_items_are_not_counted(path):
    """The best item has a bonus and is no candidate."""
    scorer = PairBonusScorer(torch.ones(1, 1), torch.tensor([[1.0], [2.0], [3.0]]), lists_of([(0, 0)], 1), [9.0])
    for masked, rank in ((None, 2.0), (lists_of([(0, 0)], 1), 1.0), (lists_of([(0, 1)], 1), 2.0)):
        held = HeldOut(np.array([0]), np.array([2]), masked)
        assert held_out_ranks(scorer, {"test": held})["test"].tolist() == [rank]


def test_both_ways_to_score_agree():
    scorer, scores = made(np.random.default_rng(0), 6, 5, 3)
    rows = torch.tensor([4, 0, 4])
    first = scorer.scores(rows)
    assert first.tolist() == scores[rows.numpy()].tolist()
    assert torch.equal(scorer.scores_into(rows, first.clone().fill_(torch.nan).T.contiguous().T), first)
    assert torch.equal(scorer.scores(rows), first)


def test_a_bonus_of_zero_changes_no_rounding(path):
    """Bonuses of zero change no rank, whatever the numbers."""
    generator = torch.Generator().manual_seed(3)
    users, items = torch.randn(50, 16, generator=generator), torch.randn(90, 16, generator=generator)
    rng = np.random.default_rng(3)
    cells = [tuple(cell) for cell in np.argwhere(rng.random((50, 90)) < 0.2)]
    held = question(rng, 50, 90)
    with_zeros = PairBonusScorer(users, items, lists_of(cells, 50), np.zeros(len(cells)))
    np.testing.assert_array_equal(
        held_out_ranks(with_zeros, {"test": held})["test"],
        held_out_ranks(EmbeddingScorer(users, items), {"test": held})["test"],
    )


def test_errors_of_bonuses():
    users, items = torch.ones(2, 1), torch.ones(3, 1)
    pairs = lists_of([(0, 1), (1, 2)], 2)
    for lists, bonus, message in (
        (pairs, [1.0], r"\(1,\) bonuses for 2 pairs of 2 users, the scorer has 2 users; give one bonus per pair"),
        (lists_of([(0, 1)], 3), [1.0], r"1 pairs of 3 users, the scorer has 2 users; .* a list of pairs per user"),
        (
            lists_of([(0, 3)], 2),
            [1.0],
            "pairs of bonuses must be items of the catalogue, ascending per user, each once",
        ),
        (CSR(np.array([0, 1, 1]), np.array([-1])), [1.0], "must be items of the catalogue"),
        (CSR(np.array([0, 2, 2]), np.array([1, 1])), [1.0, 1.0], "each once"),
        (CSR(np.array([0, 2, 2]), np.array([2, 1])), [1.0, 1.0], "ascending per user"),
    ):
        with pytest.raises(UsageError, match=message):
            PairBonusScorer(users, items, lists, bonus)
    for value in (np.nan, np.inf):
        with pytest.raises(RunError, match="a bonus is NaN or infinite; train with a lower --lr"):
            PairBonusScorer(users, items, pairs, [1.0, value])
    with pytest.raises(RunError, match="user embeddings are not finite"):
        PairBonusScorer(users * torch.nan, items, pairs, [1.0, 1.0])
    assert PairBonusScorer(users, items, pairs, [1.0, -np.inf]).bonus.dtype == np.float32


# --- blocks ---------------------------------------------------------------------------------------------------------


def test_a_function_of_users_is_ranked_like_its_table(path):
    _, scores = made(np.random.default_rng(1), 13, 11, 3)
    scorer = BlockScorer(lambda users: torch.tensor(scores)[users], 13, 11)
    assert isinstance(scorer, Scorer)
    held = unmasked(question(np.random.default_rng(2), 13, 11))
    for ties in TIES:
        np.testing.assert_array_equal(held_out_ranks(scorer, {"test": held}, ties)["test"], naive(scores, held, ties))


def test_blocks_of_the_wrong_shape_are_refused():
    scorer = BlockScorer(lambda users: torch.zeros(len(users), 4), 3, 5)
    with pytest.raises(UsageError, match=r"a scorer gave \(2, 4\) scores, expected \(2, 5\)"):
        scorer.scores(torch.tensor([0, 1]))
    nan = BlockScorer(lambda users: torch.full((len(users), 5), torch.nan), 3, 5)
    with pytest.raises(RunError, match="the model gives NaN scores; train with a lower --lr"):
        held_out_ranks(nan, {"test": HeldOut(np.array([0]), np.array([0]), None)})


# --- what they serve ------------------------------------------------------------------------------------------------


class Toy(EmbeddingRecommender):
    """A model with embeddings and any of the scorers."""

    name = "toy"
    kind = "embedding"

    def __init__(self, graph, target, **options):
        super().__init__(graph, target, **options)
        self.make_tables(5, std=1.0)

    def encode(self, graph=None):
        return Encoded(*self.tables)

    def scorer(self, graph=None):
        users, items = (table.detach() for table in self.tables)
        if self.kind == "embedding":
            return EmbeddingScorer(users, items)
        view = self.other_relations(graph)["view"]
        pairs = CSR(*view.neighbors("user"))
        bonus = 3.0 - 0.5 * np.arange(len(pairs.indices), dtype=np.float32)
        bonus[:1] = -np.inf
        scorer = PairBonusScorer(users, items, pairs, bonus)
        return scorer if self.kind == "pairs" else BlockScorer(scorer.scores, len(users), len(items))


@pytest.mark.parametrize("kind", ["embedding", "pairs", "blocks"])
def test_ranks_recommendations_and_exports_serve_every_scorer(tiny, path, kind, tmp_path):
    model = Toy(tiny.graph, tiny.target, rng=5)
    model.kind = kind
    scores = model.scorer().scores(torch.arange(6)).double().numpy()
    if kind != "embedding":
        assert scores[0, 0] == -np.inf

    result = evaluate(model, tiny, mask="none", k=(1,))
    held = HeldOut(result.pair_user, result.pair_item, None)
    np.testing.assert_array_equal(result.pair_rank, naive(scores, held, "realistic"))

    table = mb.recommend(model, tiny, k=5, exclude="none")
    for user in range(6):
        own = table[table.user == f"u{user}"]
        order = [item for item in np.argsort(-scores[user], kind="stable") if scores[user, item] > -np.inf]
        assert own.item.tolist() == [f"i{item}" for item in order]  # a barred pair is recommended to nobody
        assert own.score.to_numpy() == pytest.approx(scores[user, order], rel=1e-6, abs=1e-6)

    exported = mb.export_embeddings(model, tiny, tmp_path / "toy.npz")
    assert exported.meta["dot_scores"] == (kind == "embedding")
    np.testing.assert_array_equal(exported.user, model.tables[0].detach().numpy())


def test_a_pair_scorer_reads_the_graph_it_is_given(tiny):
    model = Toy(tiny.graph, tiny.target, rng=5)
    model.kind = "pairs"
    fewer = tiny.replace(edges={**tiny.edges, "view": tiny.edges["view"][2:]})
    rows = torch.arange(6)
    assert not torch.equal(model.scorer(fewer.graph).scores(rows), model.scorer().scores(rows))
