import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbgraph.data.alignment import alignment
from mbgraph.data.synthetic import Auxiliary, SyntheticConfig, demo, generate, planted
from mbgraph.errors import DataError, UsageError

DEMO_HASH = "7ba57b79e5f9d8c52f48a565b3b247b12b9b5a9e9d7f27f694ff57964699f017"


def small(**changes):
    values = {
        "num_users": 200,
        "num_items": 150,
        "auxiliary": {"view": Auxiliary(3_000, bar=0.5), "cart": Auxiliary(900, bar=0.3)},
        "dt": 0.4,
        "num_factors": 8,
    }
    return SyntheticConfig(**{**values, **changes})


def test_demo_is_pinned_and_as_documented():
    ds = demo()
    assert ds.content_hash() == DEMO_HASH
    assert ds.counts == {"view": 40_000, "cart": 12_000, "buy": 8_000, "valid": 2_000, "test": 2_000}
    assert ds.behaviors == ("view", "cart", "buy")
    assert ds.name == "demo"
    assert ds.metadata["synthetic"] is True
    assert (ds.users[0], ds.users[1999], ds.items[0], ds.items[999]) == ("u0001", "u2000", "i0001", "i1000")
    found = alignment(ds)
    assert (found.bar, found.dt) == ({"view": 0.55, "cart": 0.35}, 0.35)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**40),
    bars=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    where=st.floats(0, 1),
    pairs_per_user=st.floats(3, 9),
    noise=st.floats(0, 1),
    skew=st.floats(0, 1.2),
    held_out=st.booleans(),
    times=st.booleans(),
)
def test_parameters_come_out_as_asked(seed, bars, where, pairs_per_user, noise, skew, held_out, times):
    low, high = max(0.0, 1 - sum(bars)), 1 - max(bars)
    config = SyntheticConfig(
        num_users=40,
        num_items=60,
        auxiliary={f"b{n}": Auxiliary(400 + 13 * n, bar, noise) for n, bar in enumerate(bars)},
        pairs_per_user=pairs_per_user,
        dt=min(max(low + where * (high - low), low), high),
        num_factors=4,
        popularity_skew=skew,
        held_out=held_out,
        times=times,
    )
    ds = generate(config, rng=seed)
    total = config.num_pairs
    assert len(ds.edges["buy"]) + len(ds.valid) + len(ds.test) == total
    found = alignment(ds)
    for n, (behavior, spec) in enumerate(config.auxiliary.items()):
        assert len(ds.edges[behavior]) == 400 + 13 * n
        assert round(found.bar[behavior] * total) == round(spec.bar * total)
        on_target = round(spec.bar * total)
        wanted = round(noise * (spec.edges - on_target))
        assert ds.metadata["planted"][behavior] == {
            "on_target": on_target,
            "preference": spec.edges - on_target - wanted,
            "noise": wanted,
        }
    assert abs(found.dt - config.dt) * total <= (len(bars) + 1) / 2 + 1e-6  # each rounded BAR may shift it
    if held_out:
        for pairs in (ds.valid, ds.test):
            assert np.array_equal(np.sort(pairs.user), np.arange(40))
        assert np.bincount(ds.edges["buy"].user, minlength=40).min() >= 1
        everything = np.concatenate([p.keys(60) for p in (ds.edges["buy"], ds.valid, ds.test)])
        assert len(np.unique(everything)) == total
    assert all((pairs.time is not None) == times for pairs in ds.edges.values())


def test_same_seed_same_data_other_seed_other_data():
    assert generate(small(), rng=3).content_hash() == generate(small(), rng=3).content_hash()
    assert generate(small(), rng=3).content_hash() != generate(small(), rng=4).content_hash()
    drawn = generate(small(), rng=np.random.default_rng(5))
    assert drawn.content_hash() == generate(small(), rng=drawn.metadata["seed"]).content_hash()


def test_auxiliary_events_precede_the_purchase_and_test_is_last():
    ds = generate(small())
    bought = {}
    for pairs in (ds.edges["buy"], ds.valid, ds.test):
        bought.update(zip(pairs.keys(150).tolist(), pairs.time.tolist(), strict=True))
    steps = {}
    for behavior in ds.auxiliary:
        pairs = ds.edges[behavior]
        steps[behavior] = dict(zip(pairs.keys(150).tolist(), pairs.time.tolist(), strict=True))
        shared = bought.keys() & steps[behavior].keys()
        assert shared
        assert all(steps[behavior][key] < bought[key] for key in shared)
    both = bought.keys() & steps["view"].keys() & steps["cart"].keys()
    assert all(steps["view"][key] < steps["cart"][key] for key in both)
    last = np.zeros(200, np.int64)
    np.maximum.at(last, ds.edges["buy"].user, ds.edges["buy"].time)
    assert (ds.valid.time > last[ds.valid.user]).all()
    order = np.argsort(ds.valid.user)
    assert (ds.test.time[np.argsort(ds.test.user)] > ds.valid.time[order]).all()


def test_preference_drives_the_target_and_noise_does_not_follow_it():
    def lift(noise, behavior):
        """Mean planted probability of the pairs no target has, over the user's average."""
        ds = generate(small(auxiliary={"view": Auxiliary(3_000, 0.5, noise), "cart": Auxiliary(900, 0.3)}))
        scores = planted(ds).scores()
        assert np.allclose(scores.sum(axis=1), 1)
        pairs = ds.edges[behavior]
        keys = pairs.keys(150)
        target = np.concatenate([p.keys(150) for p in (ds.edges["buy"], ds.valid, ds.test)])
        free = ~np.isin(keys, target) if behavior != "buy" else np.ones(len(keys), bool)
        return scores[pairs.user[free], pairs.item[free]].mean() * 150

    assert lift(0.2, "buy") > 4
    assert lift(0.0, "view") > lift(0.5, "view") > lift(1.0, "view")
    assert lift(1.0, "view") < 1.6  # popular items are somewhat likelier for anybody


def test_ranking_by_the_planted_truth_beats_popularity_by_far():
    ds = demo()
    rows = ds.edges["buy"]

    def hit_rate(scores):
        scores = scores.copy()
        scores[rows.user, rows.item] = -1
        own = scores[ds.test.user, ds.test.item]
        return ((scores[ds.test.user] > own[:, None]).sum(axis=1) < 10).mean()

    popularity = np.tile(np.bincount(rows.item, minlength=1000).astype(float), (2000, 1))
    assert hit_rate(planted(ds).scores()) > 0.33
    assert hit_rate(popularity) < 0.1


def test_popularity_follows_the_exponent():
    def top_share(skew):
        spec = {"view": Auxiliary(2_000, 0.1, noise=1.0)}
        ds = generate(SyntheticConfig(400, 400, auxiliary=spec, dt=None, popularity_skew=skew, num_factors=4))
        noise = np.sort(np.bincount(ds.edges["view"].item, minlength=400))[::-1]
        return noise[:40].sum() / noise.sum()

    assert top_share(0.0) < 0.2
    zipf = np.arange(1, 401) ** -0.8
    assert abs(top_share(0.8) - zipf[:40].sum() / zipf.sum()) < 0.06
    truth = planted(generate(small(num_users=4_000, pairs_per_user=3.0, auxiliary={}, dt=None)))
    assert np.abs(truth.scores().mean(axis=0) / truth.popularity - 1).mean() < 0.1  # taste averages to popularity


def test_options():
    ds = generate(small(dt=None, times=False, string_ids=False, held_out=False, target="order"), name="mine")
    assert (ds.name, ds.target, dict(ds.splits)) == ("mine", "order", {})
    assert ds.users.is_identity
    assert alignment(ds).dt == pytest.approx(0.35, abs=0.001)  # (1 - .5)(1 - .3)
    only = generate(small(auxiliary={}, dt=None))
    assert only.behaviors == ("buy",)


def test_scaled_has_the_edges_asked_for():
    ds = generate(SyntheticConfig.scaled(100_000))
    assert sum(ds.counts.values()) == 100_000
    assert SyntheticConfig.scaled(30_000_000, num_factors=3).num_users == 300_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dt": 0.6}, "DT of 0.6 contradicts the BARs .* between 0.2 and 0.5"),
        ({"dt": 0.1}, "DT of 0.1 contradicts"),
        ({"num_users": 0}, "num_users must be at least 1"),
        ({"taste": 0.0}, "taste must be positive"),
        ({"popularity_skew": float("nan")}, "popularity_skew must not be negative"),
        ({"pairs_per_user": 2.0}, "at least 3, not 2.0; a held-out user keeps"),
        ({"target": "view"}, "'view' is the target and an auxiliary"),
        ({"auxiliary": {"view": Auxiliary(100, 0.5)}, "dt": None}, "100 edges of 'view' cannot hold 0.5"),
        ({"auxiliary": {"view": Auxiliary(100, 1.5)}, "dt": None}, "must lie between 0 and 1"),
        ({"auxiliary": {"view": Auxiliary(29_000, 0.5)}, "dt": 0.5}, "more than half of users x items"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        small(**changes)


def test_too_few_items_and_missing_truth():
    config = SyntheticConfig(4, 6, auxiliary={}, dt=None, pairs_per_user=3.0)
    assert len(generate(config).edges["buy"]) == 4  # every user fills half the catalogue
    with pytest.raises(DataError, match="12 pairs of 'buy' do not fit 4 users"):
        generate(_unchecked(config, num_items=5))
    ds = generate(small())
    reread = json.loads(json.dumps(ds.metadata))  # as a dataset folder keeps it
    assert np.array_equal(planted(ds.replace(metadata=reread)).user, planted(ds).user)
    with pytest.raises(DataError, match="no planted truth"):
        planted(ds.replace(metadata={}))


def _unchecked(config, **changes):
    """A configuration past its own checks: what generate itself refuses."""
    broken = dataclasses.replace(config)
    for name, value in changes.items():
        object.__setattr__(broken, name, value)
    return broken
