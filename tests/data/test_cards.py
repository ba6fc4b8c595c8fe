import os
import re
from pathlib import Path

import numpy as np
import pytest

from mbgraph.data.alignment import alignment
from mbgraph.data.cards import canonical_behavior, cards, find_card, get_card, load_card
from mbgraph.data.download import check_against, download
from mbgraph.data.formats.npz import read_npz
from mbgraph.data.transfer import git_blob_id
from mbgraph.errors import DataError, UnknownNameError

FOLDER = Path(__file__).resolve().parents[2] / "datasets"
COMMIT, BLOB = "0123456789abcdef0123456789abcdef01234567", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
CARD = f"""
name = "shop"
title = "Shop"
description = "A shop."
citation = "Nobody"
licence = "none published"
homepage = "https://example.org/shop"
format = "pairs"
users = 6
items = 5
behaviors = ["view", "buy"]
target = "buy"
protocol = "loo"
dt = 0.25

[aliases]
view = ["pv"]

[splits]
test = "the last"

[counts]
view = 3
buy = 2
test = 1

[bar]
view = 0.5

[[sources]]
repository = "some-body/shop"
commit = "{COMMIT}"
folder = "data"
files = [
  {{ part = "view", path = "pv.txt", git_blob = "{BLOB}", size = 0 }},
  {{ part = "buy", path = "buy.txt", git_blob = "{BLOB}" }},
  {{ part = "test", path = "sub/test.txt", sha256 = "{"0" * 64}", format = "adjacency" }},
]
"""


def write(folder, text):
    file = folder / "shop.toml"
    file.write_text(text)
    return file


def test_the_promised_cards_exist():
    assert set(cards()) >= {
        "taobao",
        "tmall",
        "beibei",
        "taobao15k",
        "tmall10k",
        "ijcai15",
        "taobao_noview",
        "tmall_noview",
    }


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.toml")), ids=lambda file: file.stem)
def test_each_card_is_complete(file):
    card = load_card(file)
    assert card == find_card(file.stem)
    assert card.is_downloadable or card.by_hand
    assert set(card.bar) == (set(card.behaviors) - {card.target} if card.counts else set())
    if card.format != "events":
        assert set(card.counts) >= {*card.behaviors, "test"}
        assert card.dt is not None
    for source in card.sources:
        assert source.is_verifiable
        assert re.fullmatch(r"https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/\S+", source.url)


@pytest.mark.parametrize(("name", "interactions"), [("taobao", 2_001_680), ("tmall", 2_324_166), ("beibei", 3_359_784)])
def test_cards_of_the_paper_add_up_to_its_tables(name, interactions):
    card = get_card(name)
    train_and_held_out = sum(card.counts[part] for part in ("buy", "valid", "test") if part in card.counts)
    assert card.paper["purchase"] == train_and_held_out
    assert card.paper["interactions"] == interactions == sum(card.counts.values())
    assert {f"bar_{behavior}": value for behavior, value in card.bar.items()} == {
        key: value for key, value in card.paper.items() if key.startswith("bar_")
    }
    assert card.dt == card.paper["dt"]


def test_a_card_is_read(tmp_path):
    card = load_card(write(tmp_path, CARD))
    assert (card.name, card.users, card.items, card.dt) == ("shop", 6, 5, 0.25)
    assert (card.behaviors, card.target, card.counts) == (("view", "buy"), "buy", {"view": 3, "buy": 2, "test": 1})
    assert (card.bar, card.aliases) == ({"view": 0.5}, {"view": ("pv",)})
    assert [source.name for source in card.sources] == ["pv.txt", "buy.txt", "test.txt"]
    assert [source.format for source in card.sources] == ["pairs", "pairs", "adjacency"]
    assert card.sources[2].url == f"https://raw.githubusercontent.com/some-body/shop/{COMMIT}/data/sub/test.txt"
    assert card.is_downloadable
    assert card.size is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Shop"', 'titel = "Shop"', r"unknown option of the card 'titel'; did you mean 'title'\?"),
        ('title = "Shop"', "", "the card needs 'title', text; add title, A heading"),
        ('title = "Shop"', "title = 3", "title of the card must be text, got 3; correct it"),
        ('title = "Shop"', 'title = " "', "title of the card must be text, got ' '"),
        ('name = "shop"', 'name = "../shop"', "name of the card must be a name of small letters.*, got '../shop'"),
        ("https://example.org/shop", "file:///etc/passwd", "homepage of the card must be an address that starts with"),
        ('format = "pairs"', 'format = "pair"', r"unknown format 'pair'; did you mean 'pairs'\?"),
        ("users = 6", "users = 0", "users of the card must be a whole number from 1 to 1099511627776, got 0"),
        ("users = 6", "users = true", "users of the card must be a whole number from 1 to 1099511627776, got True"),
        ("users = 6", 'users = "6"', "users of the card must be a whole number from 1 to 1099511627776, got '6'"),
        ('["view", "buy"]', '["view", "view", "buy"]', "'behaviors' names one twice"),
        ('["view", "buy"]', '["view", "valid", "buy"]', "'behaviors' names one twice, or one that is a split"),
        ('["view", "buy"]', "3", "behaviors of the card must be a list of names, got 3"),
        ('["view", "buy"]', "[]", "behaviors of the card must be a list of names"),
        ('["view", "buy"]', '["view", 3]', "behaviors of the card must be a list of names, got 3 in it"),
        ('target = "buy"', 'target = "by"', r"unknown target 'by'; did you mean 'buy'\?"),
        ("dt = 0.25", "dt = 25", "dt of the card must be a number from 0 to 1 or none, got 25"),
        (
            "dt = 0.25",
            "crop = [3]",
            r"crop of the card must be \[users, items\], two whole numbers of at least 1 or none",
        ),
        ("dt = 0.25", "crop = [3, 0]", r"crop of the card must be \[users, items\].*, got 0 in it"),
        ("dt = 0.25", 'content_hash = "abc"', "content_hash of the card must be 64 hexadecimal digits or none"),
        ("dt = 0.25", "dt = 0.25\ncounts = 3", "is no TOML file|counts of the card must be a table"),
        ("view = 3\n", "veiw = 3\n", r"unknown key of 'counts' 'veiw'; did you mean 'view'\?"),
        ("view = 3\n", "", "'counts' lacks view; add it"),
        ("view = 3\n", "view = -3\n", "counts.view of the card must be a whole number from 0 to 1099511627776, got -3"),
        ("view = 0.5", "buy = 0.5", "unknown key of 'bar' 'buy'"),
        ("view = 0.5", "view = 1.5", "bar.view of the card must be a number from 0 to 1, got 1.5"),
        ('view = ["pv"]', 'view = "pv"', "aliases.view of the card must be a list of names, got 'pv'"),
        ("[bar]", "[paper]\ncart = 0.5\n[bar]", "paper.cart of the card must be a whole number of at least 0, got 0.5"),
        ("[bar]", "[paper]\ndt = 2\n[bar]", "paper.dt of the card must be a number from 0 to 1, got 2"),
        ("[bar]", '[paper]\ndt = "2"\n[bar]', "paper.dt of the card must be a number, got '2'"),
        ("[bar]", "[paper]\nbuys = 2\n[bar]", "unknown key of 'paper' 'buys'"),
        ('test = "the last"', 'tset = "the last"', r"unknown key of 'splits' 'tset'; did you mean 'test'\?"),
        ("some-body/shop", "some-body", r"repository of a table of \[\[sources\]\] must be owner/name"),
        (COMMIT, "main", r"commit of a table of \[\[sources\]\] must be 40 hexadecimal digits or none, got 'main'"),
        (BLOB, BLOB.upper(), "git_blob of a file of 'sources' must be 40 hexadecimal digits"),
        (
            "size = 0",
            "size = -1",
            "size of a file of 'sources' must be a whole number from 0 to 1099511627776 or none, got -1",
        ),
        ("size = 0", "length = 0", "unknown option of a file of 'sources' 'length'"),
        ('part = "view"', 'part = "veiw"', r"unknown part 'veiw'; did you mean 'view'\?"),
        ('path = "pv.txt"', 'path = "../pv.txt"', r"'data/\.\./pv.txt' is no path of a source"),
        ('path = "pv.txt"', 'path = "/pv.txt"', "'data//pv.txt' is no path of a source"),
        ('path = "pv.txt"', 'path = ".pv.txt"', "is no path of a source"),
        ('path = "pv.txt"', 'path = "a\\\\b"', "is no path of a source"),
        ('path = "pv.txt"', 'path = "nul.txt"', "is no path of a source"),
        ('path = "pv.txt"', 'path = "other/BUY.txt"', "two sources have the same file 'buy.txt'"),
        ('folder = "data"', 'folder = ".."', r"'\.\./pv.txt' is no path of a source"),
        ('part = "view"', 'part = "buy"', "two sources have the same part 'buy'"),
        (f'  {{ part = "buy", path = "buy.txt", git_blob = "{BLOB}" }},\n', "", "no source holds buy"),
        (f', git_blob = "{BLOB}" }}', " }", "a file has no place or no hash; say under 'by_hand'"),
        ("[[sources]]", "[sources]", r"sources of the card must be tables, got .*; write them as \[\[sources\]\]"),
        ("folder =", "folders =", r"unknown option of a table of \[\[sources\]\] 'folders'; did you mean 'folder'"),
        ("files = [", "files = [3,", "files of a table of .* must be a list of tables, got 3 in it"),
        ("title", "title = title", "is no TOML file"),
    ],
)
def test_wrong_cards_say_what_is_wrong(tmp_path, old, new, message):
    assert old in CARD
    file = write(tmp_path, CARD.replace(old, new, 1))
    with pytest.raises(DataError, match=message) as caught:
        load_card(file)
    assert str(file) in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_missing_card(tmp_path):
    with pytest.raises(DataError, match="cannot read .*nothing.toml: No such file"):
        load_card(tmp_path / "nothing.toml")


def test_unknown_cards():
    assert find_card("beibie") is None
    with pytest.raises(UnknownNameError, match=r"unknown dataset card 'beibie'; did you mean 'beibei'\?"):
        get_card("beibie")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("ipv", "view"), ("pv", "view"), ("click", "view"), (" View ", "view"), ("fav", "collect"),
        ("favorite", "collect"), ("collect", "collect"), ("addtocart", "cart"), ("cart", "cart"),
        ("purchase", "buy"), ("transaction", "buy"), ("order", "buy"), ("buy", "buy"), ("share", "share"), ("", ""),
    ],
)  # fmt: skip
def test_aliases(label, name):
    assert canonical_behavior(label) == name


def test_aliases_of_the_cards_are_known():
    for card in cards().values():
        for behavior, labels in card.aliases.items():
            assert {canonical_behavior(label) for label in labels} == {canonical_behavior(behavior)}, card.name


def test_the_docs_show_the_cards():
    page = (FOLDER.parent / "docs" / "datasets.md").read_text(encoding="utf-8")
    row = r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \| ([^|]+) \| ([^|]+) \| `([^|]+)` \| ([^|]+) \|$"
    rows = re.findall(row, page, re.MULTILINE)
    assert {
        name: (users, items, tuple(behaviors.split(", ")), protocol, how)
        for name, users, items, behaviors, _, protocol, how in rows
    } == {
        name: (
            f"{card.users:,}",
            f"{card.items:,}",
            card.behaviors,
            card.protocol,
            "download" if card.is_downloadable else "by hand",
        )
        for name, card in cards().items()
    }


REAL = os.environ.get("MBGRAPH_DATA")


@pytest.mark.realdata
@pytest.mark.skipif(not REAL, reason="MBGRAPH_DATA is not set")
@pytest.mark.parametrize("name", sorted(cards()))
def test_cards_agree_with_the_data(name):
    folder = Path(REAL) / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not in $MBGRAPH_DATA")
    card, ds = get_card(name), read_npz(folder)
    check_against(card, ds)
    found = alignment(ds)
    assert {behavior: round(value, 4) for behavior, value in found.bar.items()} == card.bar
    assert round(found.dt, 4) == card.dt
    if name in ("taobao_noview", "tmall_noview"):
        assert card.content_hash == ds.content_hash()


def published(card, source, folder):
    """Return the bytes of a published text file, written again from the pairs in the npz layout."""
    if source.part == "count":
        return f'{{"user": {card.users}, "item": {card.items}}}'.encode()
    arrays = np.load(folder / f"{source.part}.npz", allow_pickle=False)
    offset, end = (0 if source.format == "adjacency" else 1), ("\r\n" if card.name.startswith("tmall") else "\n")
    rows = zip((arrays["user"] + offset).tolist(), (arrays["item"] + offset).tolist(), strict=True)
    return "".join(f"{user} {item}{end}" for user, item in rows).encode()


@pytest.mark.realdata
@pytest.mark.skipif(not REAL, reason="MBGRAPH_DATA is not set")
@pytest.mark.parametrize("name", ["taobao_noview", "tmall_noview", "beibei"])
def test_blob_ids_are_those_of_the_data(name, tmp_path):
    """Only the right bytes have the right id; where all of them are at hand, they become the dataset again."""
    folder = Path(REAL) / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not in $MBGRAPH_DATA")
    card = get_card(name)
    checked = [source for source in card.sources if source.format in ("pairs", "adjacency")]
    for source in checked:
        content = published(card, source, folder)
        assert (source.name, git_blob_id(content), len(content)) == (source.name, source.git_blob, source.size)
        (tmp_path / source.name).write_bytes(content)
    if name == "beibei":
        assert len(checked) == 1
        return
    assert len(checked) == len(card.sources)
    made = read_npz(download(card, tmp_path / "data", source=tmp_path))
    assert made.content_hash() == card.content_hash
    assert made.counts == card.counts
