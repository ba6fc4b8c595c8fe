"""Item cosine against the formula in a loop, blocks of every size, its truncation and its ties."""

import numpy as np
import pytest
import torch

from mbgraph import evaluate, recommend
from mbgraph.data.interactions import Pairs
from mbgraph.errors import UsageError
from mbgraph.models import ItemCosine, build_model, item_cosine
from mbgraph.nn.relations import Relations
from mbgraph.testing.recommenders import toy_dataset

BEHAVIORS = ("click", "fav", "buy")


def weights(ds, deliberate=0.5, casual=0.2):
    made = np.zeros((ds.num_users, ds.num_items))
    for name, pairs in ds.edges.items():
        made[pairs.user, pairs.item] += {"buy": 1.0, "fav": deliberate, "click": casual}[name]
    return made


def naive(touched, shrink=5.0, power=0.5):
    """Similarities by the formula: (U, I) -> (I, I)."""
    num_users, num_items = touched.shape
    found = np.zeros((num_items, num_items))
    for i in range(num_items):
        for j in range(num_items):
            if i != j:
                both = sum(
                    touched[u, i] * touched[u, j] * max(1.0, touched[u].sum()) ** -power for u in range(num_users)
                )
                found[i, j] = both / np.sqrt((touched[:, i].sum() + shrink) * (touched[:, j].sum() + shrink))
    return found


def similarities(ds, **options):
    model = ItemCosine(ds.graph, ds.target, behaviors=ds.behaviors, **options)
    return model.scorer().similarities.toarray()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shrink", "power"), [(5.0, 0.5), (1.0, 0.0), (0.5, 1.0)])
def test_against_a_loop(seed, shrink, power):
    ds = toy_dataset(BEHAVIORS, seed)
    touched = weights(ds)
    expected = naive(touched, shrink, power)
    model = ItemCosine(ds.graph, ds.target, behaviors=ds.behaviors, shrink=shrink, user_power=power)
    scorer = model.scorer()
    np.testing.assert_allclose(scorer.similarities.toarray(), expected, atol=1e-6)
    scores = scorer.scores(torch.arange(ds.num_users)).numpy()
    np.testing.assert_allclose(scores, touched @ expected, atol=1e-5)


@pytest.mark.parametrize("cells", [1, 40, 10_000])
def test_blocks_change_nothing(monkeypatch, cells):
    ds = toy_dataset(BEHAVIORS)
    whole = similarities(ds, neighbors=4)
    monkeypatch.setattr(item_cosine, "_CELLS", cells)
    assert np.array_equal(similarities(ds, neighbors=4), whole)


@pytest.mark.parametrize("count", [1, 3, 16])
def test_the_largest_of_each_item_are_kept(count):
    ds = toy_dataset(BEHAVIORS)
    full, cut = similarities(ds), similarities(ds, neighbors=count)
    kept = np.zeros_like(full, bool)
    for row, values in enumerate(full):
        best = [column for column in np.argsort(-values, kind="stable")[:count] if values[column] > 0]
        kept[row, best] = True
    assert np.array_equal(cut, np.where(kept | kept.T, full, 0))


def test_of_equal_similarities_the_lower_items_are_kept(tiny):
    """One user touched everything, so that all items are equally alike; every item keeps its two lowest others."""
    edges = {"view": Pairs(np.zeros(5, np.int64), np.arange(5)), "buy": Pairs(np.array([1]), np.array([0]))}
    ds = tiny.replace(edges=edges, splits={})
    found = similarities(ds, neighbors=2, shrink=0.0)[1:, 1:]  # item 0 was bought too, and is less like the others
    np.testing.assert_allclose(found[found > 0], found.max())
    assert (found > 0).sum(1).tolist() == [3, 3, 2, 2]  # 1-2, 1-3, 1-4, 2-3, 2-4: the kept entries, both ways


def test_names_of_behaviors_decide_their_weight():
    ds = toy_dataset(("pv", "AddToCart", "share", "buy"))
    relations = Relations.of(ds.graph, ds.behaviors, ds.target)
    made = item_cosine.weighted_union(relations, ItemCosine.Options()).toarray()
    expected = np.zeros_like(made)
    for name, weight in {"pv": 0.2, "AddToCart": 0.5, "share": 0.2, "buy": 1.0}.items():
        expected[ds.edges[name].user, ds.edges[name].item] += weight
    np.testing.assert_allclose(made, expected, atol=1e-6)


def test_a_behavior_of_weight_0_is_not_read():
    ds = toy_dataset(BEHAVIORS)
    fewer = ds.replace(edges={name: ds.edges[name] for name in ("fav", "buy")})
    assert np.array_equal(similarities(ds, casual_weight=0.0), similarities(fewer))


def test_equal_scores_go_to_the_more_bought_item(tiny):
    """u5 touched nothing, so only popularity is left."""
    scores = ItemCosine(tiny.graph, "buy").scorer().scores(torch.tensor([5]))[0]
    assert scores.argsort(descending=True, stable=True).tolist() == [0, 1, 2, 3, 4]
    assert float(scores.max()) < 1e-8


def test_both_ways_to_score_agree(tiny):
    scorer, rows = ItemCosine(tiny.graph, "buy").scorer(), torch.arange(6)
    assert torch.equal(scorer.scores_into(rows, torch.full((6, 5), torch.nan).double()), scorer.scores(rows))


def test_it_beats_popularity_on_the_demo_data():
    from mbgraph.data.catalog import load_dataset

    ds = load_dataset("demo")
    found = {name: evaluate(build_model(name, ds.graph, ds.target), ds).metrics["HR@10"] for name in NAMES}
    assert found["item-cosine"] > 1.5 * found["popularity"]


NAMES = ("item-cosine", "popularity")


def test_it_recommends_what_was_not_touched():
    ds = toy_dataset(BEHAVIORS)
    model = ItemCosine(ds.graph, ds.target, behaviors=ds.behaviors)
    expected = weights(ds) @ naive(weights(ds))
    frame = recommend(model, ds, k=1, exclude="all")
    touched = weights(ds) > 0
    for row in frame.itertuples():
        free = np.where(touched[row.user], -np.inf, expected[row.user])
        assert expected[row.user, row.item] == pytest.approx(free.max(), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"neighbors": 0}, "neighbors of model 'item-cosine' must be a whole number from 1 to 1000000, got 0"),
        ({"shrink": -1.0}, "shrink of model 'item-cosine' must be a number from 0 to 1000000, got -1"),
        ({"user_power": 1.5}, "user_power of model 'item-cosine' must be a number from 0 to 1, got 1.5"),
    ],
)
def test_wrong_options(tiny, options, what):
    with pytest.raises(UsageError, match=what):
        ItemCosine(tiny.graph, "buy", **options)
