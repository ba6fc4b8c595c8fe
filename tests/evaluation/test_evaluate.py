"""Evaluation of a dataset: masks, groups, counts, errors, what is saved. The tiny dataset is in tests/conftest.py."""

import json
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import torch

from mbgraph.data.interactions import Vocabulary
from mbgraph.data.synthetic import SyntheticConfig, generate
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.evaluation.evaluate import evaluate, evaluate_splits
from mbgraph.evaluation.options import MASKS, EvaluationOptions
from mbgraph.evaluation.per_user import read_per_user
from mbgraph.evaluation.scorers import EmbeddingScorer
from mbgraph.models import LightGCN, Popularity


class Table:
    def __init__(self, scores):
        self.table = torch.as_tensor(scores, dtype=torch.float32)
        self.num_users, self.num_items = self.table.shape

    def scores(self, users):
        return self.table[users]


@pytest.fixture
def falling():
    """Every user likes item 0 most and item 4 least."""
    return Table(np.tile(np.arange(5, 0, -1), (6, 1)))


def ranks(result):
    pairs = zip(result.pair_user.tolist(), result.pair_item.tolist(), strict=True)
    return dict(zip(pairs, result.pair_rank.tolist(), strict=True))


@pytest.mark.parametrize(
    ("mask", "split", "expected"),
    [
        ("none", "test", {(0, 2): 3, (2, 0): 1, (2, 3): 4, (3, 1): 2}),
        ("train-target", "test", {(0, 2): 2, (2, 0): 1, (2, 3): 3, (3, 1): 1}),
        ("train+valid-target", "test", {(0, 2): 1, (2, 0): 1, (2, 3): 3, (3, 1): 1}),
        ("all-behaviors", "test", {(0, 2): 1, (2, 0): 1, (3, 1): 1}),
        ("train-target", "valid", {(0, 1): 1, (1, 3): 3}),
        ("train+valid-target", "valid", {(0, 1): 1, (1, 3): 3}),
        ("all-behaviors", "valid", {(1, 3): 2}),
    ],
)
def test_masks_by_hand(tiny, falling, mask, split, expected):
    result = evaluate(falling, tiny, split=split, k=(1, 2), mask=mask)
    assert ranks(result) == expected
    assert result.pairs_left_out == len(tiny.splits[split]) - len(expected)
    assert result.users_evaluated == len({user for user, _ in expected})
    assert result.users_left_out == 6 - result.users_evaluated


def test_groups_by_hand(tiny, falling):
    result = evaluate(falling, tiny, k=(1, 3))
    shares = {name: (group["share"], group["pairs"], group["users"]) for name, group in result.groups.items()}
    assert shares == {"all": (1.0, 4, 3), "visited": (0.25, 1, 1), "unvisited": (0.75, 3, 3)}
    assert result.groups["visited"]["metrics"]["HR@1"] == 0.0
    assert result.groups["visited"]["metrics"]["NDCG@3"] == pytest.approx(0.5)  # u2: i3 on rank 3, the only truth
    assert result.groups["unvisited"]["metrics"]["HR@1"] == pytest.approx(2 / 3)
    assert result.metrics["Recall@1"] == pytest.approx((0 + 1 / 2 + 1) / 3)
    assert result.metrics == result.groups["all"]["metrics"]


def test_discovery_leaves_an_empty_group_without_figures(tiny, falling):
    result = evaluate(falling, tiny, k=(1,), mask="all-behaviors")
    assert result.groups["visited"] == {"metrics": {}, "share": 0.0, "pairs": 0, "users": 0}
    assert result.groups["unvisited"]["share"] == 1.0
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_mask_that_leaves_nothing(tiny, falling):
    same = tiny.replace(splits={"valid": tiny.test, "test": tiny.test})
    with pytest.raises(DataError, match=r"mask 'train\+valid-target' leaves none of the 4 test pairs .*choose another"):
        evaluate(falling, same, k=(1,), mask="train+valid-target")


def test_users_without_train_target_are_counted(tiny, falling):
    buys = tiny.edges["buy"]
    fewer = tiny.replace(edges={**tiny.edges, "buy": buys[buys.user != 3]})
    assert evaluate(falling, tiny, k=(1,)).users_without_train == 0
    assert evaluate(falling, fewer, k=(1,)).users_without_train == 1


@pytest.fixture(scope="module")
def made():
    return generate(SyntheticConfig(num_users=300, num_items=600), rng=4)


@pytest.fixture(scope="module")
def scorer(made):
    generator = torch.Generator().manual_seed(0)
    return EmbeddingScorer(
        torch.randn(made.num_users, 8, generator=generator), torch.randn(made.num_items, 8, generator=generator)
    )


@pytest.mark.parametrize("mask", MASKS)
def test_splits_together_and_alone(made, scorer, mask):
    together = evaluate_splits(scorer, made, mask=mask)
    for split, result in together.items():
        alone = evaluate(scorer, made, split=split, mask=mask)
        assert alone.to_dict() == result.to_dict()
        np.testing.assert_array_equal(alone.pair_rank, result.pair_rank)


@pytest.mark.parametrize("chunk_size", [1, 7, 256, 1000])
def test_chunk_size_changes_nothing(made, scorer, chunk_size):
    usual, chunked = (evaluate(scorer, made, chunk_size=size) for size in (None, chunk_size))
    assert usual.to_dict() == chunked.to_dict()
    np.testing.assert_array_equal(usual.pair_rank, chunked.pair_rank)


def test_order_of_the_pairs_changes_nothing(made, scorer):
    shuffled = np.random.default_rng(0).permutation(len(made.test))
    other = made.replace(splits={**made.splits, "test": made.test[shuffled]})
    assert evaluate(scorer, made).to_dict() == evaluate(scorer, other).to_dict()


def test_order_of_tied_pairs_changes_nothing(tiny):
    """u2's visited i3 and unvisited i0 tie: which one comes first must not depend on the file."""
    backwards = tiny.replace(splits={"test": tiny.test[::-1]})
    flat = Table(np.ones((6, 5)))
    assert evaluate(flat, tiny, k=(1, 2)).to_dict() == evaluate(flat, backwards, k=(1, 2)).to_dict()


def test_per_user_results(tiny, falling, tmp_path):
    result = evaluate(falling, tiny, k=(1, 3))
    frame = result.per_user()
    assert frame["user"].tolist() == ["u0", "u2", "u3"]
    assert frame["HR@1"].mean() == pytest.approx(result.metrics["HR@1"])
    path = tmp_path / "per_user.npz"
    result.save_per_user(path)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["user"].tolist() == [0, 2, 3]
        assert arrays["pair_rank"].tolist() == result.pair_rank.tolist()
        visited = list(zip(arrays["pair_user"].tolist(), arrays["pair_item"].tolist(), strict=True))
        assert [pair for pair, seen in zip(visited, arrays["pair_visited"], strict=True) if seen] == [(2, 3)]
        assert str(arrays["split"]) == "test"
    saved = read_per_user(path)
    assert saved.user_id.tolist() == ["u0", "u2", "u3"]
    assert (saved.split, saved.mask, saved.ties) == ("test", "train-target", "realistic")
    assert {name: values.mean() for name, values in saved.metrics.items()} == pytest.approx(result.metrics)


def test_a_result_as_plain_values_by_hand(tiny, falling):
    result = evaluate(falling, tiny, k=(2,), mask="train+valid-target", ties="pessimistic")
    assert result.to_dict() == {
        **result.metrics,
        "groups": result.groups,
        "mask": "train+valid-target",
        "ties": "pessimistic",
        "users_evaluated": 3,
        "users_left_out": 3,
        "users_without_train": 0,
        "pairs_left_out": 0,
    }
    assert (result.split, result.cutoffs, result.users.tolist()) == ("test", (2,), [0, 2, 3])
    assert result.pair_visited.tolist() == [False, False, True, False]


def test_a_result_is_shown_without_its_arrays_and_stays_as_it_is(tiny, falling):
    result = evaluate(falling, tiny, k=(1,))
    shown = {field.name for field in fields(result) if f"{field.name}=" in repr(result)}
    counts = {"users_evaluated", "users_left_out", "users_without_train", "pairs_left_out"}
    assert shown - {"users"} == {"split", "mask", "ties", "cutoffs", "groups", *counts}
    assert "array(" not in repr(result)
    with pytest.raises(FrozenInstanceError):
        result.split = "valid"


def test_what_is_evaluated_unless_told_otherwise(made, scorer):
    result = evaluate(scorer, made)
    assert (result.split, result.cutoffs, result.mask, result.ties) == ("test", (10, 20), "train-target", "realistic")
    both = evaluate_splits(scorer, made)
    assert list(both) == ["valid", "test"]
    assert {(one.cutoffs, one.mask, one.ties) for one in both.values()} == {((10, 20), "train-target", "realistic")}


def test_integer_ids_are_saved_as_such(tiny, falling, tmp_path):
    numbered = tiny.replace(users=Vocabulary([10, 20, 30, 40, 50, 60], kind="user"))
    evaluate(falling, numbered, k=(1,)).save_per_user(tmp_path / "per_user.npz")
    with np.load(tmp_path / "per_user.npz", allow_pickle=False) as arrays:
        assert arrays["user_id"].dtype.kind == "i"
        assert arrays["user_id"].tolist() == [10, 30, 40]


def test_a_model_is_asked_for_its_scorer_after_its_dataset_is_checked(tiny, falling):
    class Model:
        asked = []  # noqa: RUF012

        def check_dataset(self, dataset):
            assert dataset is tiny
            self.asked.append("check")

        def scorer(self):
            self.asked.append("scorer")
            return falling

    assert evaluate(Model(), tiny, k=(1,)).to_dict() == evaluate(falling, tiny, k=(1,)).to_dict()
    assert Model.asked == ["check", "scorer"]


@pytest.mark.parametrize("kind", [Popularity, LightGCN])
def test_a_dataset_of_other_train_edges_is_refused(tiny, kind):
    """Scores would come from purchases that are held out here, or from none."""
    options = {"embedding_dim": 8} if kind is LightGCN else {}
    model = kind(tiny.graph, tiny.target, **options)
    buys = tiny.edges["buy"]
    fewer = tiny.replace(edges={**tiny.edges, "buy": buys[1:]})
    message = (
        r"the model was built on other 'buy' edges than the train edges of dataset 'tiny'; build it on dataset.graph; "
        r"to score from another graph, pass model.scorer\(graph\)"
    )
    with pytest.raises(DataError, match=message):
        evaluate(model, fewer)
    scored = evaluate(model.scorer(fewer.graph), fewer, k=(1,))
    fresh = kind(fewer.graph, fewer.target, **options)
    fresh.load_state_dict(model.state_dict())
    assert scored.to_dict() == evaluate(fresh, fewer, k=(1,)).to_dict()
    views = tiny.edges["view"]
    other = tiny.replace(edges={**tiny.edges, "view": views[1:]})
    assert evaluate(model, other, k=(1,)).users_evaluated == 3  # behaviors that the model does not read may differ


def test_cutoffs_beyond_the_catalogue_are_cut(tiny, falling):
    result = evaluate(falling, tiny, k=(2, 10, 20))
    assert result.cutoffs == (2, 5)
    assert {name for name in result.metrics if name.startswith("HR")} == {"HR@2", "HR@5"}


def test_options_name_a_metric_with_its_cutoff():
    assert EvaluationOptions(metric="NDCG@20").metric_cutoff == 20
    with pytest.raises(UnknownNameError, match="unknown metric 'NDGC'; did you mean 'NDCG'"):
        EvaluationOptions(metric="NDGC@20")
    for metric in ("HR", "HR@", "HR@0", "HR@x", "HR@1.5"):
        with pytest.raises(UsageError, match=f"metric '{metric}' has no cut-off; write it as HR@10"):
            EvaluationOptions(metric=metric)
    with pytest.raises(UsageError, match="k of the evaluation options is empty"):
        EvaluationOptions(k=())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": (0,)}, UsageError, "a cut-off must be at least 1, got 0"),
        ({"split": "tset"}, UnknownNameError, "unknown split 'tset'; did you mean 'test'"),
        ({"mask": "train-targets"}, UnknownNameError, "did you mean 'train-target'"),
        ({"ties": "optimist"}, UnknownNameError, "did you mean 'optimistic'"),
        ({"chunk_size": 0}, UsageError, "chunk_size must be positive"),
    ],
)
def test_wrong_options(tiny, falling, options, error, message):
    with pytest.raises(error, match=message):
        evaluate(falling, tiny, **{"k": (1,), **options})


def test_missing_split_and_foreign_dataset(tiny, falling):
    with pytest.raises(DataError, match=r"'tiny' has no valid pairs; hold some out"):
        evaluate(falling, tiny.replace(splits={"test": tiny.test}), split="valid", k=(1,))
    with pytest.raises(
        DataError, match=r"scores 3 users x 5 items, dataset 'tiny' has 6 x 5; use the dataset the model"
    ):
        evaluate(Table(np.ones((3, 5))), tiny, k=(1,))
