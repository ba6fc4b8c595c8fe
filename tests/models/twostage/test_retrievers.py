"""Where untouched items come from: each retriever against a plain loop, several together, and what cannot be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph import evaluate
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.models import RETRIEVERS, LightGCN, Retriever
from mbgraph.models.twostage.candidates import candidates_of
from mbgraph.models.twostage.retrievers import _largest, retrieved_by

USERS, ITEMS = 24, 17


@pytest.fixture
def facts_of(build):
    """Return the facts of a model with runs attached."""

    def made(ds, **options):
        model = build(ds, **options)
        if model.options.runs:
            base = LightGCN(ds.graph, ds.target, behaviors=ds.behaviors, rng=3, embedding_dim=4)
            model.attach(dict.fromkeys(model.options.runs, base))
        return model.facts()

    return made


def known(ds):
    return {
        (u, i) for pairs in ds.edges.values() for u, i in zip(pairs.user.tolist(), pairs.item.tolist(), strict=True)
    }


def orders(ds, facts):
    """Every user's items by each retriever, best first, by definition."""
    bought = np.bincount(ds.edges["buy"].item, minlength=ITEMS)
    alike = (facts.weights @ facts.similar("all")).toarray().astype(np.float64)
    users, items = facts.runs["r"]
    dot = (users.astype(np.float64) @ items.astype(np.float64).T).astype(np.float32)
    touched = known(ds)
    made = {"item-cosine": [], "popularity": [], "dot": []}
    for user in range(USERS):
        new = [item for item in range(ITEMS) if (user, item) not in touched]
        near = [item for item in new if alike[user, item] > 0]
        made["item-cosine"].append(sorted(near, key=lambda item: (-round(alike[user, item], 5), -bought[item], item)))
        made["popularity"].append(sorted(new, key=lambda item: (-bought[item], item)))
        made["dot"].append(sorted(new, key=lambda item: (-dot[user, item], item)))
    return made


@pytest.mark.parametrize("count", [0, 1, 4, ITEMS + 3])
@pytest.mark.parametrize("name", ["item-cosine", "popularity", "dot"])
def test_each_finds_what_a_plain_loop_finds(ds, name, count, facts_of):
    facts = facts_of(ds, runs=("r",), retrievers=(name,))
    (retriever,) = facts.retrievers
    assert (retriever.name, isinstance(retriever, Retriever)) == (name, True)
    found = retriever.retrieve(np.arange(USERS), count)
    assert found.shape == (USERS, count)
    for user, wanted in enumerate(orders(ds, facts)[name]):
        assert found[user].tolist() == [*wanted[:count], *[-1] * (count - len(wanted[:count]))]


@pytest.mark.parametrize("name", ["item-cosine", "popularity", "dot"])
def test_a_user_s_items_do_not_depend_on_the_others(ds, name, monkeypatch, facts_of):
    from mbgraph.models.twostage import retrievers as module

    facts = facts_of(ds, runs=("r",), retrievers=(name,))
    whole = facts.retrievers[0].retrieve(np.arange(USERS), 5)
    monkeypatch.setattr(module, "_CELLS", 2 * ITEMS)
    for users in (np.arange(USERS), np.array([3]), np.array([2, 9, 21])):
        assert np.array_equal(facts.retrievers[0].retrieve(users, 5), whole[users])


def test_several_give_each_item_once_those_of_the_first_first(ds, facts_of):
    facts = facts_of(ds, runs=("r",), retrievers=("dot", "popularity", "dot"), retrieved=4)
    assert [each.name for each in facts.retrievers] == ["dot", "popularity"]
    by_name = orders(ds, facts)
    place, items = retrieved_by(facts.retrievers, np.arange(USERS), 4)
    assert (np.diff(place) >= 0).all()
    pairs = candidates_of(facts, np.arange(USERS))
    for user in range(USERS):
        wanted = list(dict.fromkeys(by_name["dot"][user][:4] + by_name["popularity"][user][:4]))
        assert items[place == user].tolist() == wanted
        assert pairs.items[(pairs.users == user) & ~pairs.seen].tolist() == wanted


def test_none_leave_the_seen_list(ds, facts_of):
    facts = facts_of(ds, retrievers=())
    assert candidates_of(facts, np.arange(USERS)).seen.all()


@given(st.lists(st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0]), min_size=5, max_size=5), min_size=1, max_size=4))
def test_the_largest_with_ties(rows):
    scores = np.array(rows, np.float32)
    for count in range(7):
        found = _largest(scores, count)
        for row, own in zip(rows, found.tolist(), strict=True):
            wanted = sorted((place for place in range(5) if np.isfinite(row[place])), key=lambda at: (-row[at], at))
            kept = wanted[: min(count, 5)]
            assert own == [*kept, *[-1] * (min(count, 5) - len(kept))]


def test_a_model_ranks_what_its_retrievers_find(ds, build, facts_of):
    model = build(ds, retrievers=("popularity",), retrieved=3)
    model.learn(ds)
    _, pairs, _ = model.scorer().lists(np.arange(USERS))
    wanted = orders(ds, facts_of(ds, runs=("r",)))["popularity"]
    for user in range(USERS):
        assert sorted(pairs.items[(pairs.users == user) & ~pairs.seen]) == sorted(wanted[user][:3])
    assert evaluate(model, ds).users_evaluated > 0


def test_a_retriever_of_ones_own(ds, facts_of):
    @RETRIEVERS.register("last-item")
    class LastItem(Retriever):
        name = "last-item"

        def retrieve(self, users, count):
            return np.full((len(users), count), -1)

    try:
        assert candidates_of(facts_of(ds, retrievers=("last-item",)), np.arange(USERS)).seen.all()
    finally:
        del RETRIEVERS._entries["last-item"]


def test_retrievers_that_cannot_be(ds, facts_of):
    with pytest.raises(UnknownNameError, match="unknown retriever 'item-cosin'.*did you mean 'item-cosine'"):
        facts_of(ds, retrievers=("item-cosin",))
    with pytest.raises(UsageError, match="retriever 'dot' needs the embeddings of a trained run; name one"):
        facts_of(ds, retrievers=("dot",))
