"""Every code is triggered by a dataset made for it, and by that dataset alone."""

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph import data
from mbgraph.data.alignment import alignment
from mbgraph.data.card import Card
from mbgraph.data.check import CODES, Finding, behaviors_within_target, check, sorted_share
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.npz import write_npz
from mbgraph.data.interactions import Pairs, Vocabulary

USERS, ITEMS = 30, 12


def pairs(cells, start=None):
    user, item = np.array(list(cells), np.int64).reshape(-1, 2).T
    return Pairs(user, item, None if start is None else start + np.arange(len(user), dtype=np.int64))


def clean(**changes):
    """Thirty users with two purchases each; one held out for validation and one for test, none of them viewed."""
    edges = {
        "view": pairs([(u, (u + k) % ITEMS) for u in range(USERS) for k in (4, 0, 2)], 0),
        "buy": pairs([(u, (u + k) % ITEMS) for u in range(USERS) for k in (7, 0)], 1_000),
    }
    splits = {
        "valid": pairs([(u, (u + 8) % ITEMS) for u in range(USERS)], 2_000),
        "test": pairs([(u, (u + 9) % ITEMS) for u in range(USERS)], 3_000),
    }
    users, items = Vocabulary(size=USERS, kind="user"), Vocabulary(size=ITEMS, kind="item")
    ds = MultiBehaviorDataset("clean", users, items, edges, "buy", splits)
    return ds.replace(**changes)


def codes(findings):
    return sorted({found.code for found in findings})


def test_nothing_to_report():
    assert check(clean()) == []


def edges(ds, **changes):
    return ds.replace(edges={**ds.edges, **changes})


def splits(ds, **changes):
    return ds.replace(splits={**ds.splits, **changes})


def without_times(ds):
    bare = {name: Pairs(part.user, part.item) for name, part in (*ds.edges.items(), *ds.splits.items())}
    return ds.replace(edges={name: bare[name] for name in ds.edges}, splits={name: bare[name] for name in ds.splits})


def sort_by_item(ds):
    ds = without_times(ds)
    view = ds.edges["view"]
    return edges(ds, view=view[np.lexsort((view.item, view.user))])


def half(part):
    return part.user[::2].tolist(), part.item[::2].tolist()


CASES = {
    "MBG109": lambda ds: edges(ds, click=ds.edges["view"]),
    "MBG110": lambda ds: edges(ds, click=ds.edges["view"][:60]),
    "MBG111": lambda ds: splits(ds, test=pairs([(u, (u + (4 if u < 3 else 9)) % ITEMS) for u in range(USERS)], 3_000)),
    "MBG112": lambda ds: edges(ds, buy=ds.edges["buy"][2:]),
    "MBG113": lambda ds: ds.replace(users=Vocabulary(size=USERS + 1, kind="user")),
    "MBG114": lambda ds: ds.replace(
        items=Vocabulary(size=ITEMS + 1, kind="item"),
        splits={**ds.splits, "test": pairs([(u, ITEMS if u == 0 else (u + 9) % ITEMS) for u in range(USERS)], 3_000)},
    ),
    "MBG117": lambda ds: edges(
        ds, view=Pairs(ds.edges["view"].user, ds.edges["view"].item, ds.edges["view"].time + 9_000)
    ),
    "MBG118": lambda ds: edges(ds, buy=Pairs(ds.edges["buy"].user, ds.edges["buy"].item, ds.edges["buy"].time + 9_000)),
    "MBG119": lambda ds: edges(ds, cart=pairs([(0, 1), (4, 5)], 0)),
    "MBG120": lambda ds: splits(ds, test=pairs([*((u, (u + 9) % ITEMS) for u in range(USERS)), (3, 2)], 3_000)),
    "MBG121": lambda ds: ds.replace(splits={"test": ds.splits["test"]}),
    "MBG116": without_times,
    "MBG122": lambda ds: edges(ds, share=pairs(zip(*half(ds.edges["buy"]), strict=True), 0)),
    "MBG123": lambda ds: splits(
        ds, test=Pairs(ds.test.user, ds.test.item, np.where(ds.test.user < 7, 2_000, 3_000) + ds.test.user)
    ),
}


@pytest.mark.parametrize("code", sorted(CASES))
def test_each_code_has_its_case(code):
    assert codes(check(CASES[code](clean()))) == [code]


def test_a_behavior_of_target_pairs_is_always_a_finding():
    ds = clean()
    both = np.r_[ds.edges["buy"].user[:20], ds.test.user], np.r_[ds.edges["buy"].item[:20], ds.test.item]
    leaking = edges(ds, meta=Pairs(*both, np.zeros(50, np.int64)))
    found = {finding.code: finding.text for finding in check(leaking)}
    assert found["MBG122"] == "all 50 pairs of meta are buy pairs: a model can read the answer in it"
    assert "MBG110" not in found
    assert behaviors_within_target(leaking) == ["meta"]
    same = edges(ds, copy=Pairs(ds.edges["buy"].user, ds.edges["buy"].item, np.zeros(60, np.int64)))
    assert codes(check(same)) == ["MBG109", "MBG122"]
    assert behaviors_within_target(same) == ["copy"]
    almost = edges(ds, meta=Pairs(np.r_[both[0], 0], np.r_[both[1], 4], np.zeros(51, np.int64)))
    assert behaviors_within_target(almost) == []
    assert behaviors_within_target(ds) == []
    assert data.behaviors_within_target is behaviors_within_target


def test_ties_are_counted_by_user():
    found = [finding.text for finding in check(CASES["MBG123"](clean())) if finding.code == "MBG123"]
    assert found == [
        "7 of 30 users with held-out pairs have buy pairs of the same moment on both sides of the split, the first is "
        "0: something else than time chose"
    ]


def test_sorted_by_item_says_so_only_without_times():
    found = check(sort_by_item(clean()))
    assert codes(found) == ["MBG115", "MBG116"]
    assert "view: the items of 100.0% of 30 users" in found[0].text


def test_validation_equal_to_test(tmp_path):
    write_npz(clean(), tmp_path / "clean")
    (tmp_path / "clean" / "valid.npz").write_bytes((tmp_path / "clean" / "test.npz").read_bytes())
    assert codes(check(tmp_path / "clean")) == ["MBG108"]


def damage(folder, part, user, item):
    """Replace a part of a folder, as some tool that checks nothing might have done."""
    np.savez(folder / f"{part}.npz", user=np.array(user), item=np.array(item), time=np.arange(len(user)))
    meta = json.loads((folder / "meta.json").read_text())
    meta["counts"][part] = len(user)
    (folder / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("code", "part", "user", "item", "text"),
    [
        ("MBG105", "view", [0, 0, 1], [1, 1, 2], "1 of 3 pairs of view are repeated, for example user 0, item 1"),
        (
            "MBG106",
            "view",
            [0, 40],
            [1, 2],
            "1 pairs of view have ids beyond 30 users x 12 items, the first is user 40",
        ),
        ("MBG107", "test", [0, 1], [7, 10], "1 target pairs are in train and in test, for example user 0, item 7"),
    ],
)
def test_what_the_reader_refuses_is_described(tmp_path, code, part, user, item, text):
    write_npz(clean(), tmp_path / "clean")
    damage(tmp_path / "clean", part, user, item)
    found = {finding.code: finding.text for finding in check(tmp_path / "clean")}
    assert text in found[code]


def test_unreadable_data_is_a_finding(tmp_path):
    write_npz(clean(), tmp_path / "clean")
    (tmp_path / "clean" / "view.npz").write_bytes(b"PK")
    (finding,) = check(tmp_path / "clean")
    assert finding.code == "MBG100"
    assert "view.npz" in finding.text


def card_of(ds, **changes):
    rates = alignment(ds)
    card = Card(
        name="clean",
        title="Clean",
        description="A set by hand.",
        citation="Nobody",
        licence="none",
        homepage="https://example.org",
        format="npz",
        users=ds.num_users,
        items=ds.num_items,
        behaviors=ds.behaviors,
        target="buy",
        protocol="loo",
        splits={},
        counts=ds.counts,
        bar={name: round(value, 4) for name, value in rates.bar.items()},
        dt=round(rates.dt, 4),
        paper={"view": len(ds.edges["view"]), "purchase": 4 * USERS, "interactions": 7 * USERS},
        content_hash=ds.content_hash(),
    )
    return card.replace(**changes)


def test_a_card_that_agrees_adds_nothing():
    ds = clean()
    assert check(ds, card_of(ds)) == []


@pytest.mark.parametrize(
    ("code", "changes", "text"),
    [
        ("MBG101", {"users": 31}, "against the card clean: users 30, not 31"),
        ("MBG101", {"counts": {"view": 90, "buy": 60, "valid": 30, "test": 31}}, "test 30, not 31"),
        ("MBG102", {"content_hash": "0" * 64}, "the pairs are not those of the card clean"),
        ("MBG103", {"dt": 0.1}, "DT 0.7500, not 0.1000"),
        ("MBG104", {"paper": {"purchase": 121}}, "against Table 5 of the paper: purchase 120, not 121"),
    ],
)
def test_what_the_card_says_otherwise(code, changes, text):
    ds = clean()
    (finding,) = check(ds, card_of(ds, **changes))
    assert finding.code == code
    assert text in finding.text


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=30, unique=True))
def test_sorted_share_equals_the_loop(cells):
    lists = {}
    for user, item in cells:
        lists.setdefault(user, []).append(item)
    long = [items for items in lists.values() if len(items) >= 3]
    share, users, chance = sorted_share(pairs(cells))
    assert users == len(long)
    if long:
        assert share == pytest.approx(np.mean([items == sorted(items) for items in long]))
        assert chance == pytest.approx(np.mean([1 / math.factorial(len(items)) for items in long]))


FACTS = {
    "beibei": [
        "14,274 of 21,716 test pairs (65.7%)",
        "buy: the items of 100.0% of 21,716 users",
        "there is no valid part",
    ],
    "taobao_noview": ["8,326 of 48,749 test pairs (17.1%)", "3,703 test pairs (7.6%) are of items without a train buy"],
    "tmall_noview": [
        "1,155 users with held-out pairs have no train buy",
        "424 users have no buy at all",
        "cart has 1,996 pairs",
        "25,078 of 41,314 users have several valid pairs, up to 25",
    ],
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", FACTS)
def test_what_is_known_of_published_data_is_found(name):
    """The facts of the protocol page; nothing disagrees with the cards."""
    folder = Path(os.environ.get("MBGRAPH_DATA", "/nowhere")) / name
    if not folder.is_dir():
        pytest.skip(f"no {name}: set MBGRAPH_DATA to the folder of datasets")
    found = check(folder)
    assert all(finding.severity != "error" for finding in found)
    for fact in FACTS[name]:
        assert any(fact in finding.text for finding in found), fact


def test_every_code_is_documented_and_no_other():
    page = (Path(__file__).resolve().parents[2] / "docs" / "checks.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (MBG\d+): ", page, re.MULTILINE) == list(CODES)
    for code, (severity, title) in CODES.items():
        assert f"## {code}: {title}\n\n*{severity}*" in page, code
        assert Finding(code, "").docs == f"docs/checks.md#{code.lower()}"
