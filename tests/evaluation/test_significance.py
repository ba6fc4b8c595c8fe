"""Paired tests against SciPy and by hand, degenerate differences, alignment by user."""

import itertools
import math
import warnings
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.evaluation.per_user import PerUser, read_per_user
from mbgraph.evaluation.significance import compare, compare_per_user, holm, paired_t, wilcoxon


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_tests_agree_with_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.random(200), rng.random(200) + 0.05
    found = compare(a, b)["value"]
    t = stats.ttest_rel(b, a)
    assert (found.t, found.t_p) == pytest.approx((t.statistic, t.pvalue))
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(b - a).pvalue)
    interval = t.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.effect == pytest.approx((b - a).mean() / (b - a).std(ddof=1))
    assert found.difference == pytest.approx(found.mean_b - found.mean_a)


def test_wilcoxon_is_exact_for_few_users():
    differences = np.array([0.5, 0.1, -0.2, 0.4, 0.7])
    order = np.argsort(np.argsort(np.abs(differences))) + 1
    observed = order[differences > 0].sum()
    sums = [
        sum(r for r, sign in zip(order, signs, strict=True) if sign) for signs in itertools.product([0, 1], repeat=5)
    ]
    upper = np.mean([total >= observed for total in sums])
    assert wilcoxon(differences)[1] == pytest.approx(min(1.0, 2 * upper))


def test_no_difference_is_no_evidence():
    values = np.array([0.0, 1.0, 0.5])
    found = compare(values, values.copy())["value"]
    assert (found.t, found.t_p, found.wilcoxon, found.wilcoxon_p, found.effect) == (0.0, 1.0, 0.0, 1.0, 0.0)
    assert (found.low, found.high, found.same) == (0.0, 0.0, 3)


def test_the_same_difference_for_everybody_is_infinitely_sure():
    found = compare(np.zeros(7), np.full(7, 0.1))["value"]
    assert (found.t, found.t_p, found.effect) == (math.inf, 0.0, math.inf)
    assert paired_t(np.full(3, -0.1)) == (-math.inf, 0.0)
    fallen = compare(np.full(7, 0.1), np.zeros(7))["value"]
    assert (fallen.t, fallen.t_p, fallen.effect, fallen.worse) == (-math.inf, 0.0, -math.inf, 7)
    assert (fallen.low, fallen.high) == pytest.approx((-0.1, -0.1))


def test_two_users_are_enough():
    found = compare(np.array([0.0, 0.5]), np.array([1.0, 0.5]))["value"]
    assert found.t == pytest.approx(1.0)
    assert found.t_p == pytest.approx(0.5)  # Cauchy's distribution: 1 - 2 arctan(1) / pi
    assert (found.users, found.mean_a, found.mean_b, found.wilcoxon) == (2, 0.25, 0.75, 0.0)


def test_a_comparison_stays_as_it_is_and_becomes_plain_values():
    found = compare(np.array([0.0, 0.5]), np.array([1.0, 0.5]))["value"]
    assert found.to_dict() == {field.name: getattr(found, field.name) for field in fields(found)}
    with pytest.raises(FrozenInstanceError):
        found.t = 3.0


def test_one_user_moved():
    found = compare(np.zeros(5), np.array([0, 0, 0, 0, 1.0]))["value"]
    assert (found.better, found.worse, found.same) == (1, 0, 4)
    assert found.wilcoxon_p == 1.0


def test_holm_by_hand():
    """.01 x 4, .02 x 3, .03 x 2 (no smaller than the one before), .9 x 1; .5 x 2 stops at 1."""
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_against_its_definition(p):
    order = sorted(range(len(p)), key=lambda place: p[place])
    expected, running = [0.0] * len(p), 0.0
    for step, place in enumerate(order):
        running = max(running, (len(p) - step) * p[place])
        expected[place] = min(1.0, running)
    assert holm(p) == pytest.approx(expected)


def test_holm_runs_over_the_metrics_of_each_test():
    rng = np.random.default_rng(1)
    a = {name: rng.random(50) for name in ("HR@10", "NDCG@10", "MRR@10")}
    b = {name: values + rng.normal(0.03, 0.1, 50) for name, values in a.items()}
    found = compare(a, b)
    assert [one.t_holm for one in found.values()] == holm([one.t_p for one in found.values()])
    assert [one.wilcoxon_holm for one in found.values()] == holm([one.wilcoxon_p for one in found.values()])


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros(3), np.zeros(4), "one value per user"),
        (np.zeros(1), np.zeros(1), "too few"),
        (np.zeros((2, 2)), np.zeros((2, 2)), r"values have shapes \(2, 2\) and \(2, 2\); give one value per user"),
        (np.array([0.0, np.nan]), np.zeros(2), "not all finite"),
        (np.zeros(2), np.array([0.0, np.inf]), "not all finite"),
        ({"HR@10": np.zeros(2)}, {"HR@5": np.zeros(2)}, "metrics differ"),
    ],
)
def test_what_cannot_be_compared(a, b, message):
    with pytest.raises(UsageError, match=message):
        compare(a, b)


def saved(ids, values, **how):
    how = {"split": "test", "mask": "train-target", "ties": "realistic", **how}
    return PerUser(**how, user_id=np.array(ids), metrics={"HR@10": np.array(values, float)})


def test_users_are_aligned_by_id():
    a, b = saved(["x", "y", "z"], [1, 0, 0]), saved(["z", "x", "y"], [1, 1, 0])
    found = compare_per_user(a, b)["HR@10"]
    assert (found.better, found.worse, found.same) == (1, 0, 2)


def test_the_metrics_asked_for_in_their_order_each_once():
    values = {name: np.array([0.0, 1.0]) for name in ("HR@10", "NDCG@10", "MRR@10")}
    a = PerUser("test", "none", "realistic", np.array([1, 2]), values)
    b = PerUser("test", "none", "realistic", np.array(["2", "1"]), {**values, "HR@20": values["HR@10"]})
    assert list(compare_per_user(a, b)) == ["HR@10", "NDCG@10", "MRR@10"]
    found = compare_per_user(a, b, ["MRR@10", "HR@10", "MRR@10"])
    assert list(found) == ["MRR@10", "HR@10"]
    assert found["HR@10"].better == found["HR@10"].worse == 1  # users are the same as text


def test_results_must_stand_on_the_same():
    a = saved([1, 2, 3], [1, 0, 0])
    with pytest.raises(DataError, match=r"differ in mask: 'train-target' and 'none'; evaluate both"):
        compare_per_user(a, saved([1, 2, 3], [1, 0, 0], mask="none"))
    with pytest.raises(DataError, match="3 and 2 users, 2 of them the same"):
        compare_per_user(a, saved([1, 2], [1, 1]))
    with pytest.raises(DataError, match="2 and 3 users, 2 of them the same"):
        compare_per_user(saved([1, 2], [1, 1]), a)
    with pytest.raises(DataError, match="3 and 3 users, 2 of them the same"):
        compare_per_user(a, saved([1, 2, 4], [1, 0, 0]))
    assert compare_per_user(a, saved([1, 2], [1, 1]), force=True)["HR@10"].users == 2
    for how in ({"split": "valid"}, {"mask": "none"}, {"ties": "optimistic"}):
        with pytest.raises(DataError, match=f"differ in {next(iter(how))}"):
            compare_per_user(a, saved([1, 2, 3], [1, 0, 0], **how), force=True)
    other = PerUser("test", "train-target", "realistic", a.user_id, {"MRR@5": np.zeros(3)})
    with pytest.raises(DataError, match="the results share no metric; evaluate both runs with the same cut-offs"):
        compare_per_user(a, other)
    with pytest.raises(UnknownNameError, match=r"unknown metric 'HR@1'; did you mean 'HR@10'"):
        compare_per_user(a, a, ["HR@1"])


def test_broken_files_are_one_line(tmp_path):
    path = tmp_path / "per_user.npz"
    with pytest.raises(DataError, match=r"cannot read .*per_user.npz: No such file"):
        read_per_user(path)
    path.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(DataError, match=r"cannot read per-user results .*; write it again with"):
        read_per_user(path)
    np.savez(path, split=np.array("test"))
    with pytest.raises(DataError, match="mask"):
        read_per_user(path)
    how = {name: np.array("x") for name in ("split", "mask", "ties")}
    np.savez(path, **how, user_id=np.array([1, 2]), **{"HR@10": np.zeros(3)})
    with pytest.raises(DataError, match="disagree about the number of users"):
        read_per_user(path)
    np.savez(path, **how, user_id=np.array([1, 1]), **{"HR@10": np.zeros(2)})
    with pytest.raises(DataError, match="names a user twice"):
        read_per_user(path)
    np.savez(path, **how, user_id=np.array([1, 2]), **{"HR@10": np.array(["a", "b"])})
    with pytest.raises(DataError, match="are not numbers"):
        read_per_user(path)
    np.savez(path, **how, user_id=np.array([object(), object()], dtype=object))
    with pytest.raises(DataError, match="cannot read"):
        read_per_user(path)
