"""Lists and every kind of evidence against loops over the definitions, on small graphs."""

import math

import numpy as np
import pytest
import torch
from scipy import sparse

from mbgraph import _kernels
from mbgraph.data.interactions import CSR, Pairs
from mbgraph.errors import UnknownNameError
from mbgraph.models.item_cosine import item_similarities, matrix_of
from mbgraph.models.twostage import EVIDENCE, Evidence, Facts, TwoStage
from mbgraph.models.twostage.candidates import candidates_of
from mbgraph.models.twostage.evidence import chosen_evidence
from mbgraph.models.twostage.kernel import likeness, user_directions
from mbgraph.models.twostage.rows import Layout, Weighing
from mbgraph.models.twostage.walks import nearest, walk
from mbgraph.nn.relations import Relations
from mbgraph.testing.recommenders import toy_dataset

AUXILIARY, TARGET = ("view", "cart"), "buy"


@pytest.fixture(params=range(3))
def ds(request):
    return toy_dataset((*AUXILIARY, TARGET), request.param)


def facts_of(ds, seed=0, **options):
    return Facts(Relations.of(ds.graph, ds.behaviors, ds.target), TwoStage.Options(**options), seed)


def matrices(ds):
    made = {name: np.zeros((ds.num_users, ds.num_items)) for name in ds.behaviors}
    for name, pairs in ds.edges.items():
        made[name][pairs.user, pairs.item] = 1
    return made


def everything(facts):
    return candidates_of(facts, np.arange(facts.num_users))


def measured(facts, name):
    """Return the pairs that a kind of evidence speaks of and its columns by name."""
    kind = EVIDENCE.get(name)
    pairs = everything(facts)
    own = np.zeros(len(pairs), bool)
    for each in kind.lists:
        own |= pairs.on(each)
    pairs = pairs[own]
    values = kind(facts).measure(pairs)
    columns = kind.columns(facts.setting)
    assert values.shape == (len(pairs), len(columns))
    return pairs, dict(zip(columns, values.T, strict=True))


def check(found, pairs, expected, tolerance=1e-9):
    """Compare a column with a function of user and item."""
    wanted = [expected(user, item) for user, item in zip(pairs.users.tolist(), pairs.items.tolist(), strict=True)]
    np.testing.assert_allclose(found, wanted, atol=tolerance, rtol=1e-5)


# --- lists


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("count", [0, 1, 4, 30])
def test_lists(ds, count, compiled, monkeypatch):
    """Touched and not bought; and the most alike of the untouched, by score, then popularity, then number."""
    if not compiled:
        monkeypatch.setattr(_kernels, "available", False)
    facts, cells = facts_of(ds, retrieved=count), matrices(ds)
    touched = (cells["view"] + cells["cart"]) > 0
    scores = facts.weights.toarray().astype(np.float64) @ facts.similar("all").toarray().astype(np.float64)
    popular = cells[TARGET].sum(0)
    pairs = everything(facts)
    for user in range(ds.num_users):
        mine = pairs[pairs.users == user]
        seen = np.flatnonzero(touched[user] & (cells[TARGET][user] == 0))
        free = [i for i in range(ds.num_items) if not touched[user, i] and not cells[TARGET][user, i]]
        near = sorted((i for i in free if scores[user, i] > 0), key=lambda i: (-scores[user, i], -popular[i], i))
        assert mine.items[mine.seen].tolist() == seen.tolist()
        assert mine.items[~mine.seen].tolist() == near[:count]


def test_equal_scores_go_to_the_more_bought_then_to_the_lower_item():
    weights = np.array([[1.0, 0, 0, 0, 0]], np.float32)
    similar = np.zeros((5, 5), np.float32)
    similar[0, 1:] = 0.5
    known = CSR(np.array([0, 1]), np.array([0]))
    for popularity, expected in (([0, 0, 0, 0, 0], [1, 2, 3]), ([0, 0, 1, 0, 2], [4, 2, 1])):
        found = nearest(
            sparse.csr_array(weights), sparse.csr_array(similar), known, np.array(popularity, float), np.array([0]), 3
        )
        assert found.tolist() == [expected]


def test_blocks_of_users_change_nothing(ds):
    facts = facts_of(ds)
    whole = everything(facts)
    parts = [candidates_of(facts, np.arange(start, min(start + 5, ds.num_users))) for start in range(0, 24, 5)]
    assert np.array_equal(np.concatenate([part.items for part in parts]), whole.items)


@pytest.mark.skipif(not _kernels.available, reason="numba is not installed")
def test_the_compiled_walk_is_the_plain_one(ds, monkeypatch):
    facts = facts_of(ds)
    pairs = everything(facts)
    found = {}
    for compiled in (True, False):
        monkeypatch.setattr(_kernels, "available", compiled)
        found[compiled] = walk(facts.lists["view"], facts.similar("all"), pairs.users, pairs.items)
    for one, other in zip(found[True], found[False], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    empty = np.empty(0, np.int64)
    assert [len(each) for each in walk(facts.lists["view"], facts.similar("all"), empty, empty)] == [0, 0]


# --- evidence


def test_counts(ds):
    cells, (pairs, found) = matrices(ds), measured(facts_of(ds), "counts")
    touched = (cells["view"] + cells["cart"]) > 0
    for name in (*AUXILIARY, TARGET):
        check(found[f"users of the item: {name}"], pairs, lambda u, i, n=name: math.log(1 + cells[n][:, i].sum()))
    check(
        found["buy per toucher of the item"],
        pairs,
        lambda u, i: math.log((cells[TARGET][:, i].sum() + 1) / (touched[:, i].sum() + 10)),
    )


def test_user_level(ds):
    cells, (pairs, found) = matrices(ds), measured(facts_of(ds), "user")
    assert not pairs.seen.any()
    bought, touched = cells[TARGET], (cells["view"] + cells["cart"]) > 0
    check(found["length of the seen list"], pairs, lambda u, i: math.log(1 + (touched[u] & (bought[u] == 0)).sum()))
    check(found["the user's buy"], pairs, lambda u, i: math.log(1 + bought[u].sum()))
    for name in AUXILIARY:
        check(
            found[f"the user's {name} without buy"],
            pairs,
            lambda u, i, n=name: math.log(1 + (cells[n][u] * (1 - bought[u])).sum()),
        )
    share = (bought * touched).sum() / bought.sum()
    assert 0.05 < share < 0.95

    def odds(user, item):
        seen = (bought[user] * touched[user]).sum()
        return math.log((bought[user].sum() - seen + 2 * (1 - share)) / (seen + 2 * share))

    check(found["odds of unseen purchases"], pairs, odds)


def test_patterns(ds):
    cells, (pairs, found) = matrices(ds), measured(facts_of(ds), "patterns")
    assert pairs.seen.all()
    bought = cells[TARGET]
    kinds = {}  # pattern -> pairs
    for user in range(ds.num_users):
        for item in range(ds.num_items):
            pattern = tuple(int(cells[name][user, item]) for name in AUXILIARY)
            if any(pattern):
                kinds.setdefault(pattern, []).append((user, item))
    rate = {p: max(1e-4, sum(bought[cell] for cell in own) / len(own)) for p, own in kinds.items()}
    mean = sum(rate.values()) / len(rate)

    def of(user, item):
        return tuple(int(cells[name][user, item]) for name in AUXILIARY)

    def item_level(item):
        own = [cell for each in kinds.values() for cell in each if cell[1] == item]
        observed, expected = sum(bought[cell] for cell in own), sum(rate[of(*cell)] for cell in own)
        return (observed + 10 * mean) / (expected + 10 * mean)

    def share(user, item):
        pattern = of(user, item)
        own = [cell for cell in kinds[pattern] if cell[1] == item]
        prior = min(0.9, rate[pattern] * item_level(item))
        return (sum(bought[cell] for cell in own) + 20 * prior) / (len(own) + 20)

    def conversion(user, item):
        total = 0.0
        for name in AUXILIARY:
            if cells[name][user, item]:
                overall = (cells[name] * bought).sum() / cells[name].sum()
                both = (cells[name][:, item] * bought[:, item]).sum()
                total += (both + 10 * overall) / (cells[name][:, item].sum() + 10)
        return total

    for name in AUXILIARY:
        check(found[f"in {name}"], pairs, lambda u, i, n=name: cells[n][u, i])
    check(found["conversion"], pairs, lambda u, i: math.log(conversion(u, i)))
    check(found["pattern rate"], pairs, lambda u, i: math.log(rate[of(u, i)]))
    check(found["item rate"], pairs, lambda u, i: math.log(item_level(i)))
    check(found["pattern rate of the item"], pairs, lambda u, i: math.log(share(u, i)))


@pytest.mark.parametrize("compiled", [True, False])
def test_paths(ds, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(_kernels, "available", False)
    sources = ("all", "target", "cart")
    facts, cells = facts_of(ds, path_sources=sources), matrices(ds)
    pairs, found = measured(facts, "paths")
    alone = item_similarities(matrix_of(facts.relations["cart"]), facts.options)
    assert np.array_equal(facts.similar("cart").toarray(), alone.toarray())
    for source in sources:
        similar = facts.similar(source).toarray()
        for name in (*AUXILIARY, TARGET):

            def alike(user, item, s=similar, n=name):
                return [s[item, j] for j in range(ds.num_items) if j != item and cells[n][user, j]]

            check(found[f"like the user's {name}: sum by {source}"], pairs, lambda u, i: sum(alike(u, i)), 1e-6)
            check(
                found[f"like the user's {name}: most by {source}"],
                pairs,
                lambda u, i: max(alike(u, i), default=0.0),
                1e-6,
            )


def test_offsets_of_paths_are_the_tenth_of_positive_amounts():
    values = np.array([[0.0, 1.0], [2.0, 0.0], [4.0, 0.0], [100.0, 8.0]])
    seen = np.array([True, True, True, False])
    kind = EVIDENCE.get("paths")
    assert kind.offsets(values, seen).tolist() == pytest.approx([2.2, 1.0])
    assert kind.offsets(values, np.zeros(4, bool)).tolist() == pytest.approx([2.4, 1.7])
    assert kind.offsets(np.zeros((2, 1)), np.ones(2, bool)).tolist() == [1.0]
    np.testing.assert_allclose(kind.values(values, np.array([1.0, 2.0])), np.log(values + np.array([1.0, 2.0])))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("seed", [0, 7])
def test_kernel(ds, seed, compiled, monkeypatch):
    """With all users of every item in its pool, against the definition, over the directions that were made."""
    if not compiled:
        monkeypatch.setattr(_kernels, "available", False)
    facts, cells = facts_of(ds, seed, kernel_dim=5), matrices(ds)
    directions = user_directions(facts, 5, seed).astype(np.float64)
    any_, bought = sum(cells.values()) > 0, cells[TARGET]
    overall = bought.sum() / any_.sum()

    def sums(user, item):
        alike = {v: max(0.0, directions[user] @ directions[v]) ** 2 for v in np.flatnonzero(any_[:, item]) if v != user}
        return sum(alike.values()), sum(value * bought[v, item] for v, value in alike.items())

    def rate(user, item):
        every, done = sums(user, item)
        prior = (bought[:, item].sum() + 10 * overall) / (any_[:, item].sum() + 10)
        return math.log((done + 2 * prior) / (every + 2))

    pairs, found = measured(facts, "kernel")
    assert pairs.seen.any()
    assert not pairs.seen.all()
    check(found["like users of the item"], pairs, lambda u, i: math.log(sums(u, i)[0] + 0.1), 1e-5)
    check(found["like users who did buy"], pairs, lambda u, i: math.log(sums(u, i)[1] + 0.1), 1e-5)
    check(found["buy among like users"], pairs, rate, 1e-5)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("width", [1, 5, 16, 64, 67])
@pytest.mark.parametrize("threads", [1, 2])
def test_likeness(width, threads, compiled, monkeypatch):
    """Against a loop over pairs; an item without users, one user only, and pairs in no order among them."""
    if not compiled:
        monkeypatch.setattr(_kernels, "available", False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    rng = np.random.default_rng(width)
    directions = rng.standard_normal((30, width)).astype(np.float32)
    counts = np.array([0, 1, 30, 7, 0, 12, 3])
    first = np.r_[0, counts.cumsum()]
    members = np.concatenate([rng.permutation(30)[:count] for count in counts])
    bought = rng.random(len(members)) < 0.4
    users, items = rng.integers(0, 30, 200), rng.integers(0, len(counts), 200)
    found = likeness(directions, (first, members), bought, users, items)
    expected = np.zeros((200, 2))
    for pair, (user, item) in enumerate(zip(users, items, strict=True)):
        for place in range(first[item], first[item + 1]):
            if members[place] != user:
                near = max(0.0, float(directions[user].astype(float) @ directions[members[place]])) ** 2
                expected[pair] += near, near * bought[place]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert likeness(directions, (first, members), bought, users[:0], items[:0]).shape == (0, 2)


def test_directions_are_those_of_the_singular_value_decomposition(ds):
    facts = facts_of(ds)
    any_ = sum(matrices(ds).values()) > 0
    left, right = (np.maximum(any_.sum(axis), 1) ** -0.5 for axis in (1, 0))
    scaled = left[:, None] * any_ * right
    u, s, _ = np.linalg.svd(scaled, full_matrices=False)
    rows = u[:, :4] * s[:4]
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    expected = np.where(length > 1e-6, rows / np.maximum(length, 1e-6), 0)
    made = user_directions(facts, 4, 0)
    np.testing.assert_allclose(made @ made.T, expected @ expected.T, atol=2e-3)
    assert (made[-1] == 0).all()  # who did nothing is like nobody


def test_a_pool_of_few_users_is_drawn_once(ds):
    one, two, other = (EVIDENCE.get("kernel")(facts_of(ds, seed, kernel_users=2)) for seed in (1, 1, 2))
    assert np.array_equal(one.pool, two.pool)
    assert not np.array_equal(one.pool, other.pool)
    any_ = sum(matrices(ds).values()) > 0
    assert np.diff(one.pool_of).tolist() == np.minimum(any_.sum(0), 2).tolist()
    for item in range(ds.num_items):
        assert any_[one.pool[one.pool_of[item] : one.pool_of[item + 1]], item].all()


def with_times(ds, seed=3):
    rng = np.random.default_rng(seed)
    edges = {n: Pairs(p.user, p.item, rng.integers(1000, 1030, len(p))) for n, p in ds.edges.items()}
    return ds.replace(edges=edges)


def test_recency(ds):
    ds = with_times(ds)
    last = {}
    for name in AUXILIARY:
        pairs = ds.edges[name]
        for user, item, time in zip(pairs.user.tolist(), pairs.item.tolist(), pairs.time.tolist(), strict=True):
            last[user, item] = max(last.get((user, item), 0), time)
    end = {u: max(t for (v, _), t in last.items() if v == u) for u, _ in last}
    ages = [end[u] - t for (u, _), t in last.items()]
    unit = float(np.median([age for age in ages if age > 0]))
    pairs, found = measured(facts_of(ds), "recency")
    check(found["time since the last touch"], pairs, lambda u, i: math.log1p((end[u] - last[u, i]) / unit))
    check(
        found["items touched later"],
        pairs,
        lambda u, i: math.log1p(sum(v == u and t > last[u, i] for (v, _), t in last.items())),
    )


def test_recency_needs_times(ds):
    some = with_times(ds)
    some = some.replace(edges={**some.edges, "cart": ds.edges["cart"]})
    for data, expected in ((ds, []), (some, []), (with_times(ds), ["recency"])):
        assert [kind.name for kind in chosen_evidence(("recency",), facts_of(data).setting)] == expected


def test_dot_products(ds):
    rng = np.random.default_rng(0)
    runs = {name: (rng.normal(size=(24, 3)), rng.normal(size=(17, 3))) for name in ("one", "two")}
    relations = Relations.of(ds.graph, ds.behaviors, ds.target)
    pairs, found = measured(Facts(relations, TwoStage.Options(runs=tuple(runs)), 0, runs), "dot")
    for name, (users, items) in runs.items():
        check(found[f"dot product of {name}"], pairs, lambda u, i, a=users, b=items: float(a[u] @ b[i]))


# --- rows


def test_rows_are_standardised_and_clipped(ds):
    facts = facts_of(ds)
    weighing = Weighing(facts, Layout.of(facts.setting))
    measure = weighing.measured(everything(facts))
    scale = weighing.scale(measure)
    rows = weighing.rows(measure, scale)
    for name in ("seen", "retrieved"):
        assert rows[name].shape[1] == len(weighing.layout.columns(name))
        assert np.abs(rows[name]).max() <= 6
    assert (rows["retrieved"][:, -1] == 1).all()
    np.testing.assert_allclose(rows["retrieved"][:, :-1].mean(0), 0, atol=0.2)  # clipping moves it a little
    constant = rows["seen"].std(0) == 0
    assert (rows["seen"][:, constant] == 0).all()


def test_a_package_adds_evidence(ds, monkeypatch):
    monkeypatch.setattr(EVIDENCE, "_entries", dict(EVIDENCE._entries))

    @EVIDENCE.register("number")
    class Number(Evidence):
        name = "number"
        lists = ("seen",)

        @classmethod
        def columns(cls, setting):
            return ("number of the item",)

        def measure(self, pairs):
            return pairs.items[:, None].astype(float)

    model = TwoStage(ds.graph, ds.target, behaviors=ds.behaviors, evidence=("counts", "number"))
    model.learn(ds)
    names = [(each["list"], each["evidence"]) for each in model.weights()]
    assert ("seen", "number") in names
    assert ("retrieved", "number") not in names
    found = model.scorer().scores(torch.arange(ds.num_users))
    assert torch.isfinite(found).all()


def test_unknown_evidence(ds):
    with pytest.raises(UnknownNameError, match=r"unknown evidence 'path'; did you mean 'paths'\?"):
        TwoStage(ds.graph, ds.target, behaviors=ds.behaviors, evidence=("path",))


def test_unknown_sources_of_paths(ds):
    with pytest.raises(UnknownNameError, match=r"unknown source of paths 'carts'; did you mean 'cart'\?"):
        TwoStage(ds.graph, ds.target, behaviors=ds.behaviors, path_sources=("all", "carts"))


def test_evidence_named_twice_counts_once(ds):
    kinds = chosen_evidence(("counts", "counts", "user"), facts_of(ds).setting)
    assert [kind.name for kind in kinds] == ["counts", "user"]
