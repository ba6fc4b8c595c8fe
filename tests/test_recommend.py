"""Recommendations: known answers, a naive oracle, ids both ways, and every error by its message."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mbgraph as mb
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError, RunError, UnknownNameError, UsageError
from mbgraph.evaluation.ranking import EmbeddingScorer
from mbgraph.recommend import popular_items, recommend, seen_items, top_items


class Table:
    """A scorer that reads its scores from a (U, I) table and remembers how it was asked."""

    def __init__(self, scores):
        self.table = torch.as_tensor(np.asarray(scores))
        self.num_users, self.num_items = self.table.shape
        self.blocks = []

    def scores(self, users):
        self.blocks.append(len(users))
        same = len(users) == self.num_users and bool((users == torch.arange(self.num_users)).all())
        return self.table if same else self.table[users]


def pairs(*edges):
    users, items = zip(*edges, strict=True)
    return Pairs(np.array(users, np.int64), np.array(items, np.int64))


def dataset(buy, view, num_users, num_items, user_ids=None, item_ids=None, test=None):
    return MultiBehaviorDataset(
        "toy",
        Vocabulary(user_ids, size=num_users, kind="user"),
        Vocabulary(item_ids, size=num_items, kind="item"),
        {"view": pairs(*view), "buy": pairs(*buy)},
        target="buy",
        splits={"test": pairs(*test)} if test else {},
    )


@pytest.fixture
def toy():
    """Three users with edges and one without, five items; ids are text."""
    return dataset(
        buy=[(0, 0), (0, 1), (1, 1), (2, 1), (2, 0)],
        view=[(0, 2), (1, 1), (1, 4)],
        num_users=4,
        num_items=5,
        user_ids=["ann", "bob", "cid", "dot"],
        item_ids=["a", "b", "c", "d", "e"],
        test=[(0, 4)],
    )


ROWS = [[5, 4, 3, 2, 1], [1, 1, 1, 1, 1], [0, 9, 2, 2, 2], [1, 2, 3, 4, 5]]


def lists(frame):
    return {user: group["item"].tolist() for user, group in frame.groupby("user", sort=False)}


def test_checkerboard():
    """Everybody bought the items of their own colour but one; that one comes first."""
    size = 8
    colour = np.arange(size) % 2
    same = [(u, i) for u in range(size) for i in range(size) if colour[u] == colour[i]]
    ds = dataset([(u, i) for u, i in same if u != i], same, size, size)
    embedding = np.eye(2, dtype=np.float32)[colour]
    frame = recommend(Table(embedding @ embedding.T), ds, k=1)
    assert frame["user"].tolist() == frame["item"].tolist() == list(range(size))
    assert (frame["score"] == 1).all()


def test_columns_ranks_and_ties(toy):
    frame = recommend(Table(np.float32(ROWS)), toy, k=3)
    assert frame.columns.tolist() == ["user", "rank", "item", "score"]
    assert lists(frame) == {
        "ann": ["c", "d", "e"],
        "bob": ["a", "c", "d"],
        "cid": ["c", "d", "e"],
        "dot": ["e", "d", "c"],
    }
    assert frame["rank"].tolist() == [1, 2, 3] * 4
    assert frame.loc[frame["user"] == "ann", "score"].tolist() == [3, 2, 1]


def test_exclude(toy):
    model = Table(np.float32(ROWS))
    assert lists(recommend(model, toy, "ann", k=5, exclude="none"))["ann"] == ["a", "b", "c", "d", "e"]
    assert lists(recommend(model, toy, "ann", k=5))["ann"] == [
        "c",
        "d",
        "e",
    ]  # the held-out e stays a candidate
    assert lists(recommend(model, toy, "ann", k=5, exclude="all"))["ann"] == ["d", "e"]
    assert lists(recommend(model, toy, "bob", k=5, exclude="all"))["bob"] == ["a", "c", "d"]


def test_seen_items_of_all_behaviors(toy):
    seen = seen_items(toy, "all")
    assert [seen.row(user).tolist() for user in range(4)] == [[0, 1, 2], [1, 4], [0, 1], []]
    assert len(seen_items(toy, "none").indices) == 0


def test_user_without_candidates_has_no_rows():
    ds = dataset([(0, 0), (0, 1), (1, 0)], [(1, 1)], 2, 2)
    frame = recommend(Table(np.ones((2, 2), np.float32)), ds, k=2)
    assert lists(frame) == {1: [1]}


def test_the_scorer_keeps_its_scores(toy):
    model = Table(np.float32(ROWS))
    recommend(model, toy, k=5, chunk_size=4)
    assert torch.equal(model.table, torch.tensor(ROWS, dtype=torch.float32))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_naive_oracle(data):
    """Few distinct scores, so most lists are cut inside a tie."""
    num_users, num_items = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 7))
    edges = st.lists(
        st.tuples(st.integers(0, num_users - 1), st.integers(0, num_items - 1)),
        min_size=1,
        max_size=12,
        unique=True,
    )
    ds = dataset(data.draw(edges), data.draw(edges), num_users, num_items)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    scores = rng.integers(-1, 2, (num_users, num_items)).astype(np.float32)
    k, exclude = data.draw(st.integers(1, num_items)), data.draw(st.sampled_from(["target", "all", "none"]))
    behaviors = {"target": ["buy"], "all": ["view", "buy"], "none": []}[exclude]
    expected = []
    for user in range(num_users):
        seen = {i for b in behaviors for u, i in zip(ds.edges[b].user, ds.edges[b].item, strict=True) if u == user}
        best = sorted((-score, item) for item, score in enumerate(scores[user].tolist()) if item not in seen)[:k]
        expected += [(user, rank, item, -score) for rank, (score, item) in enumerate(best, start=1)]
    found = recommend(Table(scores), ds, k=k, exclude=exclude, chunk_size=data.draw(st.integers(1, 7)))
    assert list(found.itertuples(index=False, name=None)) == expected


def test_top_items_cut_inside_a_tie():
    scores = torch.tensor(
        [[0.0, 1, 1, 1, 2], [3, 3, 3, 3, 3], [5, 4, 3, 2, 1], [-torch.inf, 0, -torch.inf, 0, -torch.inf]]
    )
    values, columns = top_items(scores, 3)
    assert columns.tolist() == [[4, 1, 2], [0, 1, 2], [0, 1, 2], [1, 3, 0]]
    assert values.tolist() == [[2, 1, 1], [3, 3, 3], [5, 4, 3], [0, 0, -torch.inf]]


def test_batch_equals_single():
    """To the last bit, though a product of one row is rounded otherwise than one of many."""
    rng = np.random.default_rng(0)
    num_users, num_items = 300, 1001
    users, items = (torch.from_numpy(rng.standard_normal((n, 64)).astype(np.float32)) for n in (num_users, num_items))
    model = EmbeddingScorer(users, items)
    bought = np.divmod(rng.choice(num_users * num_items, 2000, replace=False), num_items)
    ds = dataset(list(zip(*bought, strict=True)), [(0, 0)], num_users, num_items)
    together = recommend(model, ds, k=20)
    alone = pd.concat([recommend(model, ds, user, k=20) for user in range(0, num_users, 7)], ignore_index=True)
    wanted = together[together["user"] % 7 == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(wanted, alone, check_exact=True)
    pd.testing.assert_frame_equal(together, recommend(model, ds, k=20, chunk_size=299), check_exact=True)


def test_blocks_and_progress(toy):
    model, done = Table(np.float32(ROWS)), []
    whole = recommend(model, toy, k=2)
    model.blocks.clear()
    chunked = recommend(model, toy, k=2, chunk_size=3, progress=done.append)
    assert (model.blocks, done) == ([3, 3], [3, 1])  # the second block is filled up
    pd.testing.assert_frame_equal(whole, chunked)


def test_ids_round_trip_as_integers():
    ds = dataset([(0, 0), (1, 1)], [(0, 1)], 2, 3, user_ids=[70, 7], item_ids=[300, 100, 200])
    model = Table(np.float32([[0, 1, 2], [0, 1, 2]]))
    frame = recommend(model, ds, users=["7", 70, 7], k=2)  # text as a shell gives it; 7 twice
    assert lists(frame) == {7: [200, 300], 70: [200, 100]}
    assert frame["user"].dtype == frame["item"].dtype == np.int64


@pytest.mark.parametrize("users", ["bob", ["bob"], np.array(["bob"]), pd.Series(["bob"]), iter(["bob"]), {"bob"}])
def test_users_in_any_container(toy, users):
    assert lists(recommend(Table(np.float32(ROWS)), toy, users, k=1)) == {"bob": ["a"]}


def test_order_is_the_callers(toy):
    frame = recommend(Table(np.float32(ROWS)), toy, ["dot", "ann", "dot"], k=1)
    assert frame["user"].tolist() == ["dot", "ann"]
    assert recommend(Table(np.float32(ROWS)), toy, [], k=1).empty


def test_fallback_serves_strangers(toy):
    frame = recommend(Table(np.float32(ROWS)), toy, ["zoe", "ann", "dot"], k=3, fallback="popularity")
    assert lists(frame) == {"zoe": ["b", "a", "c"], "ann": ["c", "d", "e"], "dot": ["b", "a", "c"]}
    assert frame.loc[frame["user"] == "zoe", "score"].tolist() == [3, 2, 0]
    assert frame.groupby("user")["fallback"].first().to_dict() == {"ann": False, "dot": True, "zoe": True}


def test_fallback_of_strangers_only(toy):
    done = []
    frame = recommend(Table(np.float32(ROWS)), toy, "zoe", k=1, fallback="popularity", progress=done.append)
    assert (lists(frame), done) == ({"zoe": ["b"]}, [1])


def test_popular_items(toy):
    items, counts = popular_items(seen_items(toy, "target"), toy.num_items, 4)
    assert (items.tolist(), counts.tolist()) == ([1, 0, 2, 3], [3, 2, 0, 0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"users": ["ann", "zoe", "yan"]},
            DataError,
            r"unknown user 'zoe' \(and 1 more\), dataset 'toy' has 4 users; .*fallback",
        ),
        ({"k": 0}, UsageError, "k is 0; choose it from 1 to 5, the number of items"),
        ({"k": 6}, UsageError, "k is 6; choose it from 1 to 5"),
        ({"k": 2.5}, UsageError, "k must be a whole number, not 2.5"),
        ({"k": True}, UsageError, "k must be a whole number, not True"),
        ({"exclude": "targte"}, UnknownNameError, "unknown exclude 'targte'; did you mean 'target'"),
        ({"fallback": "popular"}, UnknownNameError, "unknown fallback 'popular'; did you mean 'popularity'"),
        ({"chunk_size": 0}, UsageError, "chunk_size is 0; give a positive"),
    ],
)
def test_errors(toy, options, error, message):
    with pytest.raises(error, match=message):
        recommend(Table(np.float32(ROWS)), toy, **{"k": 1, **options})


@pytest.mark.parametrize("user", ["zoe", "7.5", "007", None, float("nan"), 10**30])
def test_fallback_refuses_what_cannot_be_an_id(user):
    ds = dataset([(0, 0)], [(0, 1)], 8, 2)
    with pytest.raises(DataError, match="cannot be a user; user ids of dataset 'toy' are whole numbers"):
        recommend(Table(np.zeros((8, 2), np.float32)), ds, [user], k=1, fallback="popularity")


def test_dataset_of_another_size(toy):
    with pytest.raises(DataError, match="scores 3 users x 5 items, dataset 'toy' has 4 x 5; use the dataset"):
        recommend(Table(np.float32(ROWS[:3])), toy, k=1)


def test_nan_scores(toy):
    with pytest.raises(RunError, match="NaN scores; train with a lower --lr"):
        recommend(Table(np.full((4, 5), np.nan, np.float32)), toy, k=1)


def test_double_scores_keep_their_order():
    """Differences below float32's resolution count, and scores beyond its range are not lost."""
    ds = dataset([(0, 0)], [(0, 1)], 1, 4)
    frame = recommend(Table([[0, 1.0, 1.0 + 1e-12, -1e300]]), ds, k=4)
    assert frame["item"].tolist() == [2, 1, 3]


def test_the_public_name_is_the_function():
    """`mbgraph.recommend` is also a module; whoever imports that first must not hide the function."""
    code = "import mbgraph.recommend, mbgraph.export, mbgraph; assert mbgraph.recommend.__name__ == 'recommend'"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert mb.recommend is recommend
