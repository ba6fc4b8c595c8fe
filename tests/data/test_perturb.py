import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mbgraph
from mbgraph.data import perturb as module
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.data.perturb import perturb
from mbgraph.data.synthetic import Auxiliary, SyntheticConfig, demo, generate
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.random import stream

SMALL = generate(
    SyntheticConfig(60, 50, auxiliary={"view": Auxiliary(700, 0.5), "cart": Auxiliary(155, 0.3)}, dt=0.4, num_factors=4)
)


def keys(pairs, num_items=50):
    return pairs.keys(num_items).tolist()


def added(ds, behavior):
    return [key for key in keys(ds.edges[behavior]) if key not in set(keys(SMALL.edges[behavior]))]


@settings(deadline=None, max_examples=50)
@given(
    add=st.one_of(st.floats(0, 1.5), st.integers(0, 900)),
    remove=st.one_of(st.floats(0, 0.99), st.integers(0, 150)),
    seed=st.integers(0, 2**32),
    allow=st.booleans(),
    rejection=st.booleans(),
)
def test_exact_distinct_and_harmless(add, remove, seed, allow, rejection):
    before = SMALL.content_hash()
    plain = {behavior: len(pairs) for behavior, pairs in SMALL.edges.items()}
    wanted = {
        behavior: tuple(n if isinstance(n, int) else round(n * plain[behavior]) for n in (add, remove))
        for behavior in SMALL.auxiliary
    }
    if not any(any(pair) for pair in wanted.values()) or any(pair[1] >= plain[b] for b, pair in wanted.items()):
        return
    with pytest.MonkeyPatch.context() as patch:
        if rejection:
            patch.setattr(module, "_SMALL", 0)
            patch.setattr(module, "_BLOCK", 64)
            patch.setattr(module, "_ROUND", 256)
        ds = perturb(SMALL, add, remove, allow_held_out=allow, rng=seed)
    assert SMALL.content_hash() == before
    held_out = set(keys(SMALL.valid)) | set(keys(SMALL.test))
    for behavior, (n_added, n_removed) in wanted.items():
        original, result = set(keys(SMALL.edges[behavior])), keys(ds.edges[behavior])
        assert len(result) == len(set(result)) == plain[behavior] + n_added - n_removed
        new = set(result) - original
        assert len(new) == n_added
        assert len(original - set(result)) == n_removed
        assert allow or not new & held_out
        kept = [key for key in keys(SMALL.edges[behavior]) if key in set(result)]
        assert result[: len(kept)] == kept  # survivors in their old order, added ones after
        assert len(ds.edges[behavior].time) == len(result)
        assert ds.metadata["perturbation"]["behaviors"][behavior] == {
            "before": plain[behavior],
            "added": n_added,
            "removed": n_removed,
            "after": len(result),
        }
    assert ds.edges["buy"] is SMALL.edges["buy"]
    assert ds.splits == SMALL.splits


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    low=st.floats(0.01, 0.5),
    high=st.floats(0.5, 1.0),
    rejection=st.booleans(),
)
def test_nested_in_the_amount_and_independent_of_the_rest(seed, low, high, rejection):
    with pytest.MonkeyPatch.context() as patch:
        if rejection:
            patch.setattr(module, "_SMALL", 0)
            patch.setattr(module, "_BLOCK", 32)
            patch.setattr(module, "_ROUND", 96)
        little, much = (perturb(SMALL, add=ratio, rng=seed) for ratio in (low, high))
        less, more = (perturb(SMALL, remove=ratio * 0.9, rng=seed) for ratio in (low, high))
        both = perturb(SMALL, add=low, remove=high * 0.9, rng=seed)
        alone = perturb(SMALL, add=low, remove=high * 0.9, behaviors="cart", rng=seed)
    for behavior in SMALL.auxiliary:
        n = len(little.edges[behavior])
        assert keys(much.edges[behavior])[:n] == keys(little.edges[behavior])
        assert np.array_equal(much.edges[behavior].time[:n], little.edges[behavior].time)
        assert set(keys(more.edges[behavior])) <= set(keys(less.edges[behavior]))
        assert added(both, behavior) == added(little, behavior)
        assert set(keys(both.edges[behavior])) - set(added(both, behavior)) == set(keys(more.edges[behavior]))
    assert keys(alone.edges["cart"]) == keys(both.edges["cart"])
    assert alone.edges["view"] is SMALL.edges["view"]


def test_seeds_and_order_of_the_source():
    first, again, other = (perturb(SMALL, 0.3, 0.2, rng=seed) for seed in (1, 1, 2))
    assert first.content_hash() == again.content_hash() != other.content_hash()
    shuffled = np.random.default_rng(0).permutation(700)
    turned = SMALL.replace(edges={**SMALL.edges, "view": SMALL.edges["view"][shuffled]})
    assert perturb(turned, 0.3, 0.2, rng=1).content_hash() == first.content_hash()
    seeds = [
        perturb(SMALL, 0.3, **how).metadata["perturbation"]["seed"] for how in ({}, {"rng": 0}, {"rng": np.int64(5)})
    ]
    assert seeds == [0, 0, 5]
    drawn = perturb(SMALL, 0.3, rng=np.random.default_rng(0))
    assert drawn.content_hash() == perturb(SMALL, 0.3, rng=drawn.metadata["perturbation"]["seed"]).content_hash()


def test_added_pairs_are_uniform():
    counts = np.zeros(3000)
    for seed in range(200):
        counts[added(perturb(SMALL, add=200, behaviors="cart", allow_held_out=True, rng=seed), "cart")] += 1
    free = np.setdiff1d(np.arange(3000), keys(SMALL.edges["cart"]))
    expected = 200 * 200 / len(free)
    assert counts.sum() == counts[free].sum() == 200 * 200
    chi_square = ((counts[free] - expected) ** 2 / expected).sum() / len(free)
    assert 0.8 < chi_square < 1.1  # drawn without replacement: slightly below 1


FEW = 5  # views of `wide`: user n has viewed item n


def wide(users, items):
    few = np.arange(FEW, dtype=np.int64)
    edges = {"view": Pairs(few, few), "buy": Pairs(few, few)}
    return MultiBehaviorDataset("wide", Vocabulary(size=users), Vocabulary(size=items), edges, "buy")


@pytest.mark.parametrize(("users", "items", "n"), [(5, 838_861, 100_000), (2048, 2048, 1000), (2048, 2047, 1000)])
def test_a_seed_means_the_same_cells_in_every_version(users, items, n):
    """Up to 2^22 cells: those of a permutation that are free; from there on: those drawn, each once."""
    cells, draw = users * items, stream(7, "add", "view")
    sequence = draw.permutation(cells)[: n + FEW] if cells <= 2**22 else draw.integers(0, cells, 2 * n)
    few = [user * items + user for user in range(FEW)]
    expected = [cell for cell in dict.fromkeys(sequence.tolist()) if cell not in few][:n]
    assert perturb(wide(users, items), add=n, rng=7).edges["view"][FEW:].keys(items).tolist() == expected


def test_removal_needs_no_draw_of_cells():
    assert len(perturb(wide(10_000, 1_000), remove=2).edges["view"]) == FEW - 2


def test_added_pairs_are_uniform_in_a_space_too_large_to_shuffle():
    """10,000 users x 1,000 items: every user, every item and every region as often as chance has it."""
    users, items, n = 10_000, 1_000, 200_000
    new = perturb(wide(users, items), add=n, rng=1).edges["view"][FEW:]
    assert len(np.unique(new.keys(items))) == n
    regions = new.user // 100 * 100 + new.item // 10  # 100 x 100 of them
    for counted, bins in ((new.user, users), (new.item, items), (regions, 10_000)):
        counts, expected = np.bincount(counted, minlength=bins), n / bins
        assert len(counts) == bins
        chi_square = ((counts - expected) ** 2 / expected).sum() / bins
        assert abs(chi_square - 1) < 5 * np.sqrt(2 / bins)  # five deviations from what chance gives


def test_added_times_are_those_of_the_behavior():
    """Each original time is drawn about as often as every other, and the draw does not know the order of the file."""
    plain, n = SMALL.edges["view"], 2_000
    made = perturb(SMALL, add=n, behaviors="view", rng=1).edges["view"]
    assert made.time[:700].tolist() == plain.time.tolist()
    place = {moment: row for row, moment in enumerate(sorted(plain.time.tolist()))}
    assert len(place) == 700  # no two at one moment, so that a time tells its edge
    drawn = np.bincount([place[moment] for moment in made.time[700:].tolist()], minlength=700)
    chi_square = ((drawn - n / 700) ** 2 / (n / 700)).sum() / 700
    assert abs(chi_square - 1) < 5 * np.sqrt(2 / 700)
    shuffled = np.random.default_rng(0).permutation(700)
    turned = SMALL.replace(edges={**SMALL.edges, "view": plain[shuffled]})
    again = perturb(turned, add=n, behaviors="view", rng=1).edges["view"]
    assert (keys(again[700:]), again.time[700:].tolist()) == (keys(made[700:]), made.time[700:].tolist())
    assert (keys(again[:700]), again.time[:700].tolist()) == (keys(plain[shuffled]), plain.time[shuffled].tolist())


def test_the_last_free_pair_is_found_by_drawing_too(monkeypatch):
    monkeypatch.setattr(module, "_SMALL", 0)
    monkeypatch.setattr(module, "_BLOCK", 1024)
    free = 3000 - len(SMALL.edges["cart"])
    full = perturb(SMALL, add=free, behaviors="cart", allow_held_out=True).edges["cart"]
    assert sorted(keys(full)) == list(range(3000))


def test_held_out_pairs_are_hit_only_when_allowed():
    free = 3000 - len(SMALL.edges["cart"])
    full = perturb(SMALL, add=free, behaviors="cart", allow_held_out=True)
    assert len(full.edges["cart"]) == 3000
    held_out = set(keys(SMALL.valid)) | set(keys(SMALL.test))
    hidden = len(held_out - set(keys(SMALL.edges["cart"])))
    most = perturb(SMALL, add=free - hidden, behaviors=["cart"])
    assert not held_out & set(added(most, "cart"))
    assert set(keys(SMALL.edges["buy"])) <= set(keys(most.edges["cart"]))  # target train pairs are fair game
    with pytest.raises(DataError, match=rf"cannot add {free - hidden + 1:,} pairs to 'cart': only {free - hidden:,}"):
        perturb(SMALL, add=free - hidden + 1, behaviors="cart")


def test_manifest():
    ds = perturb(SMALL, add=0.1, remove=3, rng=7, behaviors="view")
    manifest = ds.metadata["perturbation"]
    assert ds.name == "synthetic-add0.1-remove3"
    assert manifest["source"] == {"name": "synthetic", "content_hash": SMALL.content_hash()}
    assert (manifest["seed"], manifest["add"], manifest["remove"], manifest["allow_held_out"]) == (
        7,
        0.1,
        3,
        False,
    )
    assert manifest["behaviors"] == {"view": {"before": 700, "added": 70, "removed": 3, "after": 767}}
    assert ds.metadata["synthetic"] is True
    assert "perturbation" not in SMALL.metadata
    again = perturb(ds, add=0.1)
    assert again.metadata["perturbation"]["source"]["perturbation"] == manifest


def test_the_manifest_names_the_version():
    assert perturb(SMALL, 0.1).metadata["perturbation"]["mbgraph"] == mbgraph.__version__


def test_halves_round_to_even():
    plan = perturb(SMALL, add=0.5, remove=0.1).metadata["perturbation"]["behaviors"]["cart"]
    assert (plan["added"], plan["removed"]) == (78, 16)  # 77.5 and 15.5


class _Wide:
    """Stands in for a vocabulary that would not fit in memory."""

    def __len__(self):
        return 10**12


def test_large_space_uses_no_users_x_items_memory():
    ds = demo()
    noisy = perturb(ds.replace(items=_Wide()), add=0.5, rng=3)
    assert noisy.counts["view"] == 60_000


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, UsageError, "nothing to do: add and remove are both 0"),
        ({"add": 0.001, "behaviors": "cart"}, UsageError, "nothing to do: .* round to no edge"),
        ({"add": 0.1, "behaviors": []}, UsageError, "no behavior chosen; choose from: view, cart"),
        ({"add": -0.1}, UsageError, "add must be a share such as 0.3 or a number of edges, not -0.1"),
        ({"remove": float("nan")}, UsageError, "remove must be a share"),
        ({"add": True}, UsageError, "add must be a share"),
        ({"add": "0.3"}, UsageError, "add must be a share"),
        ({"remove": 1.2}, UsageError, r"cannot remove 1.2 times the edges; .* up to 1.0"),
        ({"remove": 1.0}, DataError, "removing 700 of 700 edges would leave 'view' empty"),
        ({"remove": 155}, DataError, "would leave 'cart' empty"),
        ({"add": 0.1, "behaviors": "buy"}, UsageError, "'buy' is the target behavior and is never perturbed"),
        ({"add": 0.1, "behaviors": ["veiw"]}, UnknownNameError, "did you mean 'view'"),
        ({"add": 5.0}, DataError, "cannot add 3,500 pairs to 'view': only"),
        ({"add": 0.1, "rng": -1}, UsageError, "rng must be"),
    ],
)
def test_impossible_requests(arguments, error, message):
    with pytest.raises(error, match=message):
        perturb(SMALL, **arguments)


def test_without_auxiliary_behavior():
    bare = SMALL.replace(edges={"buy": SMALL.edges["buy"]})
    with pytest.raises(UsageError, match="has no auxiliary behavior"):
        perturb(bare, add=0.1)
