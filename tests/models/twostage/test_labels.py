"""Labels of the two-stage model, what they leak, and more of them for its network."""

import numpy as np
import pytest

from mbgraph.data.interactions import Pairs
from mbgraph.errors import UsageError
from mbgraph.models import TwoStage
from mbgraph.models.twostage import candidates
from mbgraph.models.twostage.counts import UserLevel
from mbgraph.models.twostage.labels import labels_of, more_labels
from mbgraph.models.twostage.rows import Layout, Weighing
from mbgraph.nn.relations import Relations


def labels(ds, rng=1, **options):
    relations = Relations.of(ds.graph, ds.behaviors, ds.target)
    return labels_of(ds, relations, TwoStage.Options(**options), rng), relations


def cells(relation):
    return set(zip(relation.users.tolist(), relation.items.tolist(), strict=True))


# --- labels


def test_validation_pairs_are_labels_where_there_are_any(ds):
    found, relations = labels(ds)
    assert (found.source, found.relations is relations) == ("validation", True)
    assert set(zip(found.users.tolist(), found.items.tolist(), strict=True)) == set(
        zip(ds.valid.user.tolist(), ds.valid.item.tolist(), strict=True)
    )
    assert (np.diff(found.users) >= 0).all()


def test_held_out_labels_are_one_purchase_per_user_and_are_gone(ds):
    found, relations = labels(ds, labels="held-out")
    assert len(np.unique(found.users)) == len(found.users)
    gone = set(zip(found.users.tolist(), found.items.tolist(), strict=True))
    assert gone <= cells(relations["buy"])
    assert cells(found.relations["buy"]) == cells(relations["buy"]) - gone
    for name in ("view", "cart"):
        assert cells(found.relations[name]) == cells(relations[name])
    several = np.bincount(ds.edges["buy"].user, minlength=24) > 1
    assert found.users.tolist() == np.flatnonzero(several).tolist()
    seen = cells(relations["view"]) | cells(relations["cart"])
    assert found.visited == pytest.approx(len(gone & seen) / len(gone))


def test_a_seed_decides_which(ds):
    one, two, other = (labels(ds, rng, labels="held-out")[0].items.tolist() for rng in (1, 1, 2))
    assert one == two
    assert one != other


def test_the_last_purchase_can_be_held_out(ds):
    pairs = ds.edges["buy"]
    time = np.random.default_rng(0).permutation(len(pairs))
    timed = ds.replace(edges={**ds.edges, "buy": Pairs(pairs.user, pairs.item, time)})
    found, _ = labels(timed, labels="held-out", held_out="last")
    for user, item in zip(found.users.tolist(), found.items.tolist(), strict=True):
        own = pairs.user == user
        assert item == pairs.item[own][time[own].argmax()]
    with pytest.raises(UsageError, match="'buy' pairs of 'toy' have no times; use --set held_out=random"):
        labels(ds, labels="held-out", held_out="last")


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_an_assumed_share_of_labels_stays_visited(ds, share):
    found, relations = labels(ds, labels="held-out", visited_share=share)
    gone = list(zip(found.users.tolist(), found.items.tolist(), strict=True))
    seen = cells(found.relations["view"]) | cells(found.relations["cart"])
    assert sum(cell in seen for cell in gone) == round(share * len(gone))
    assert found.visited == pytest.approx(round(share * len(gone)) / len(gone))
    for name in ("view", "cart"):  # nothing but pairs of labels is gone
        assert cells(relations[name]) - cells(found.relations[name]) <= set(gone)


def test_a_share_that_cannot_be_had_is_refused(ds, learned):
    with pytest.raises(UsageError, match=r"visited_share is 0.99, but only 0\.\d+ of the held-out pairs have"):
        learned(ds, labels="held-out", visited_share=0.99)
    with pytest.raises(UsageError, match="the visited share of validation pairs is what it is"):
        learned(ds, visited_share=0.5)


def test_a_label_leaves_every_count(ds, monkeypatch, build, learned):
    """What is measured for the fit is what would be measured had the label never been bought.

    For held-out labels the graph without them is a dataset of its own; every number of every pair must agree with it.
    """
    seen = []
    whole = Weighing.measured
    monkeypatch.setattr(Weighing, "measured", lambda self, pairs: seen.append((self, pairs)) or whole(self, pairs))
    bare = ds.replace(splits={})
    model = learned(bare, labels="held-out")
    ((weighing, pairs),) = seen
    found, _ = labels(bare, labels="held-out")
    keep = ~np.isin(ds.edges["buy"].keys(17), found.users * 17 + found.items)
    never = ds.replace(edges={**ds.edges, "buy": ds.edges["buy"][keep]}, splits={})
    other = build(never)
    fresh = Weighing(other.facts(), Layout.of(other.layout.setting))
    measured, expected = whole(weighing, pairs), whole(fresh, pairs)
    for name in measured:
        np.testing.assert_array_equal(measured[name], expected[name])
    assert model.told["labels"]["source"] == "held-out"


def test_validation_labels_are_in_no_number(ds, learned):
    """Other validation pairs of the same users, and everything measured stays as it is."""
    model, other = learned(ds), learned(ds.replace(splits={}), labels="held-out")
    for facts in (model.facts(), other.facts()):
        assert np.array_equal(facts.bought, np.sort(ds.edges["buy"].keys(17)))


def test_scores_use_every_train_purchase(ds, learned):
    """A label that was held out for the fit counts again when users are scored."""
    model = learned(ds.replace(splits={}), labels="held-out")
    facts = model.scorer().facts
    assert len(facts.bought) == len(ds.edges["buy"])


# --- more of them for the network


def test_more_labels_are_other_purchases_of_the_same_users(ds):
    relations = Relations.of(ds.graph, ds.behaviors, ds.target)
    options = TwoStage.Options(held_out="last")  # which asks for times, and these are drawn
    bought = cells(relations["buy"])
    drawn = [more_labels(relations, options, 1, "toy", number) for number in (1, 2, 3, 1)]
    for found in drawn:
        pairs = set(zip(found.users.tolist(), found.items.tolist(), strict=True))
        assert pairs <= bought
        assert cells(found.relations["buy"]) == bought - pairs
        assert found.users.tolist() == sorted({user for user, _ in bought if sum(u == user for u, _ in bought) > 1})
        assert cells(found.relations["view"]) == cells(relations["view"])
    assert np.array_equal(drawn[0].items, drawn[3].items)
    assert len({tuple(found.items.tolist()) for found in drawn}) == 3


def test_seen_lists_of_more_labels_know_nothing_of_them(ds, build):
    """Their evidence is what a model of the data without these purchases measures."""
    model = build(ds)
    lists = model.seen_lists(ds, 2)
    labels = more_labels(model.relations, model.options, 1, ds.name, 2)
    edges = labels.relations["buy"]
    without = ds.replace(edges={**ds.edges, "buy": Pairs(edges.users.numpy(), edges.items.numpy())}, splits={})
    facts = build(without).facts()
    seen = facts.seen
    users = np.unique(labels.users)
    wanted = [(user, item) for user in users for item in seen.indices[seen.indptr[user] : seen.indptr[user + 1]]]
    assert lists.users.tolist() == [user for user, _ in wanted]
    known = set(zip(labels.users.tolist(), labels.items.tolist(), strict=True))
    assert lists.chosen.tolist() == [float(pair in known) for pair in wanted]
    pairs = candidates.seen_of(facts, users)
    weighing = Weighing(facts, model.layout)
    measured = weighing.measured(pairs)
    np.testing.assert_allclose(lists.rows, weighing.rows(measured, weighing.scale(measured))["seen"], atol=1e-6)
    np.testing.assert_allclose(lists.level, UserLevel(facts).measure(pairs))
    assert lists.bounds().tolist() == [*np.unique(lists.users, return_index=True)[1].tolist(), len(lists.users)]


def test_more_labels_change_the_network_and_not_the_weights(ds, learned, everyone):
    plain, more, again = (learned(ds, head="mlp", head_labels=number) for number in (0, 2, 2))
    assert plain.weights() == more.weights()
    scores = [model.scorer().scores(everyone).numpy() for model in (plain, more, again)]
    assert np.array_equal(scores[1], scores[2])
    assert not np.allclose(scores[0], scores[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_labels": 1}, r"and head=logit is none; use --set head=mlp, or leave head_labels out"),
        (
            {"head_labels": 1, "head": "mlp", "runs": ("r",)},
            r"r was trained on the train purchases that head_labels fits",
        ),
    ],
)
def test_more_labels_that_cannot_be(ds, options, message, build):
    with pytest.raises(UsageError, match=message):
        build(ds, **options)


def test_fit_users_bounds_the_lists_of_more_labels_too(ds, build):
    assert len(np.unique(build(ds, fit_users=5).seen_lists(ds, 1).users)) <= 5
