"""What mbgraph writes in a foreign format, it reads back to the letter."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats import WRITERS, check_place, read, write
from mbgraph.data.formats.npz import is_npz, read_npz
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError, RunError, UnknownNameError, UsageError

OTHERS = [format for format in WRITERS if format != "npz"]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=6)
IDS = st.one_of(TEXT, st.sampled_from(["NA", "", '"', "a\tb", "null", "007", "1.0", " x ", "#", "u,1"]))
NAMES = st.sampled_from(["view", "cart", "buy", "购买", "add to cart", "2", "user"])
TYPES = [None, "<i4", "<i8", ">i8", "<u8", "<f4", "<f8", "<f2", "|i1"]


@st.composite
def vocabularies(draw, size, kind):
    whole = st.integers(-(2**63), 2**63 - 1)
    options = (IDS, whole, st.from_regex(r"0{0,2}[1-9]", fullmatch=True))
    lists = [st.lists(option, min_size=size, max_size=size, unique=True) for option in options]
    return Vocabulary(draw(st.one_of(st.none(), *lists)), size=size, kind=kind)


@st.composite
def datasets(draw):
    users, items = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    cell = st.tuples(st.integers(0, users - 1), st.integers(0, items - 1))
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    target = draw(st.sampled_from(names))

    def pairs(cells):
        dtype = draw(st.sampled_from(TYPES))
        time = None
        if dtype is not None:
            kind = np.dtype(dtype)
            if kind.kind == "f":
                each = st.floats(width=8 * kind.itemsize, allow_nan=False, allow_infinity=False)
            else:
                most = 2**63 - 1  # docs/data.md says which times there are
                each = st.integers(max(int(np.iinfo(kind).min), -most), min(int(np.iinfo(kind).max), most))
            time = np.array(draw(st.lists(each, min_size=len(cells), max_size=len(cells))), dtype=kind)
        return Pairs(*np.array(cells, np.int64).reshape(-1, 2).T, time)

    edges = {name: pairs(draw(st.lists(cell, min_size=1, max_size=12, unique=True))) for name in names}
    bought = set(zip(edges[target].user.tolist(), edges[target].item.tolist(), strict=True))
    free = st.lists(cell.filter(lambda pair: pair not in bought), max_size=4, unique=True)
    splits = {}
    if len(bought) < users * items:
        splits = {split: pairs(draw(free)) for split in draw(st.sets(st.sampled_from(["valid", "test"])))}
    metadata = draw(st.dictionaries(st.sampled_from(["splits", "format", "note"]), st.one_of(st.integers(), st.text())))
    if draw(st.booleans()):
        metadata["meta"] = {"source": "somewhere", "times": [1, 2.5, None], "format": "x"}
    vocabulary = {kind: draw(vocabularies(size, kind)) for kind, size in (("user", users), ("item", items))}
    return MultiBehaviorDataset(draw(st.text()), *vocabulary.values(), edges, target, splits, metadata)


def assert_same(one, other):
    assert one.content_hash() == other.content_hash()
    for name in ("name", "target", "behaviors", "metadata"):
        assert getattr(one, name) == getattr(other, name)
    assert tuple(one.splits) == tuple(other.splits)
    for ours, theirs in ((one.users, other.users), (one.items, other.items)):
        assert ours.ids.tolist() == theirs.ids.tolist()
        assert (ours.ids.dtype, ours.is_identity, ours.kind) == (theirs.ids.dtype, theirs.is_identity, theirs.kind)
    for name in (*one.edges, *one.splits):
        ours, theirs = ({**ds.edges, **ds.splits}[name] for ds in (one, other))
        assert ours.user.tolist() == theirs.user.tolist()
        assert ours.item.tolist() == theirs.item.tolist()
        assert (ours.time is None) == (theirs.time is None)
        if ours.time is not None:
            assert ours.time.dtype == theirs.time.dtype
            assert ours.time.tobytes() == theirs.time.tobytes()


@pytest.mark.parametrize("format", OTHERS)
@given(ds=datasets())
def test_nothing_is_lost(tmp_path_factory, format, ds):
    if format == "pairs":  # names that cannot be files are refused by name
        ds = ds.replace(
            edges={name.replace("user", "u"): pairs for name, pairs in ds.edges.items()},
            target=ds.target.replace("user", "u"),
        )
    folder = tmp_path_factory.mktemp(format) / "shop"
    write(ds, folder, format)
    assert_same(ds, read(folder))


@pytest.mark.parametrize("format", OTHERS)
def test_a_chain_of_formats(tmp_path, tiny, format):
    write(tiny, tmp_path / "a", format)
    write(read(tmp_path / "a"), tmp_path / "b", "npz")
    write(read(tmp_path / "b"), tmp_path / "c", OTHERS[format == OTHERS[0]])
    assert_same(tiny, read(tmp_path / "c"))


def test_floats_at_the_edge(tmp_path, tiny):
    edges = dict(tiny.edges)
    edges["cart"] = Pairs(edges["cart"].user, edges["cart"].item, np.array([5e-324, 1.7e308, -1.7e308, -0.0]))
    for format in OTHERS:
        write(tiny.replace(edges=edges), tmp_path / format, format)
        assert_same(tiny.replace(edges=edges), read(tmp_path / format))


def test_files_that_others_read(tmp_path, tiny):
    """The files speak for themselves: F1's layout, and RecBole's."""
    write(tiny, tmp_path / "f1", "pairs")
    assert json.loads((tmp_path / "f1" / "count.txt").read_text()) == {"user": 6, "item": 5}
    assert (tmp_path / "f1" / "cart.txt").read_text() == "1 2\n2 2\n3 4\n5 4\n"
    assert (tmp_path / "f1" / "validation.txt").read_text() == "1 2\n2 4\n"
    assert (tmp_path / "f1" / "users.txt").read_text().split() == [f"u{row}" for row in range(6)]
    assert (tmp_path / "f1" / "cart.time.txt").read_text() == "200\n210\n220\n230\n"
    write(tiny, tmp_path / "shop", "recbole")
    lines = (tmp_path / "shop" / "shop.inter").read_text().splitlines()
    assert lines[0] == "user_id:token\titem_id:token\tbehavior:token\ttimestamp:float\tsplit:token"
    assert lines[1] == "u0\ti0\tview\t0\ttrain"
    assert lines[-1] == "u3\ti1\tbuy\t830\ttest"
    assert len(lines) == 1 + sum(tiny.counts.values())
    assert (tmp_path / "shop" / "shop.user").read_text().splitlines()[-1] == "u5"  # without any edge


@pytest.mark.parametrize("format", OTHERS)
def test_without_the_sidecar_the_files_still_say_most(tmp_path, tiny, format):
    write(tiny, tmp_path / "shop", format)
    (tmp_path / "shop" / "mbgraph.json").unlink()
    ds = read(tmp_path / "shop")
    assert (ds.num_users, ds.num_items, ds.target) == (6, 5, "buy")
    assert {name: ds.counts[name] for name in tiny.counts} == tiny.counts
    if format == "recbole":
        assert ds.content_hash() == tiny.content_hash()
        assert set(ds.users.ids) == set(tiny.users.ids)
    else:
        assert set(ds.metadata["format"]["left_out"]) == {"users.txt", "items.txt"}
        assert ds.valid.item.tolist() == tiny.valid.item.tolist()


def lines(name, change):
    def damage(folder):
        text = (folder / name).read_text().splitlines()
        (folder / name).write_text("".join(f"{line}\n" for line in change(text)))

    return damage


def sidecar(change):
    def damage(folder):
        content = json.loads((folder / "mbgraph.json").read_text())
        change(content)
        (folder / "mbgraph.json").write_text(json.dumps(content))

    return damage


DAMAGES = [
    ("pairs", lines("cart.txt", lambda text: text[1:]), "mbgraph.json says 4 cart pairs, there are 3; restore"),
    ("pairs", lines("cart.time.txt", lambda text: text[1:]), "cart.time.txt holds 3 times, not 4"),
    (
        "pairs",
        lines("cart.time.txt", lambda text: ["x", *text[1:]]),
        "cart.time.txt: times are no numbers of type int64",
    ),
    ("pairs", lambda folder: (folder / "cart.time.txt").unlink(), "cannot read .*cart.time.txt: No such file"),
    (
        "pairs",
        lambda folder: (folder / "count.txt").write_text('{"user": 7, "item": 5}'),
        "count.txt and mbgraph.json dis",
    ),
    ("pairs", lines("users.txt", lambda text: text[1:]), "users.txt holds 5 ids"),
    ("pairs", lambda folder: (folder / "cart.txt").unlink(), "cannot read .*cart.txt: No such file"),
    ("pairs", lambda folder: (folder / "mbgraph.json").write_text("{"), "mbgraph.json is not valid JSON"),
    ("pairs", lambda folder: (folder / "mbgraph.json").write_text("[" * 100_000), "mbgraph.json is n"),
    ("pairs", sidecar(lambda content: content.update(format="recbole")), "does not describe pairs files"),
    ("pairs", sidecar(lambda content: content.update(times={"cart": "O"})), "'times' must name the type of time"),
    ("pairs", sidecar(lambda content: content.update(times={"x": "<i8"})), "'times' must name the type of time"),
    ("pairs", sidecar(lambda content: content.update(files=[1])), "'files' must be a list of names"),
    (
        "pairs",
        sidecar(lambda content: content["dataset"].update(behaviors=["../view", "buy"])),
        "cannot be a file name",
    ),
    ("pairs", sidecar(lambda content: content["dataset"].pop("target")), "lacks the key 'target'"),
    ("recbole", lines("shop.user", lambda text: text[:-1]), "shop.user holds 5 ids, mbgraph.json says 6"),
    ("recbole", lines("shop.inter", lambda text: text[:-1]), "mbgraph.json says 4 test pairs, there are 3; restore"),
    (
        "recbole",
        lines("shop.inter", lambda text: [*text, "u9\ti0\tview\t0\ttrain"]),
        "shop.inter: unknown user 'u9'; add it",
    ),
    ("recbole", lines("shop.inter", lambda text: [*text, text[-1]]), "says 4 test pairs, there are 5"),
    ("recbole", lines("shop.inter", lambda text: [*text[:-1], text[-2]]), "1 duplicate pairs"),
    (
        "recbole",
        sidecar(lambda content: content["dataset"]["ids"].update(users="int")),
        "shop.user holds ids that are no",
    ),
    ("recbole", lines("shop.user", lambda text: [*text[:-1], text[-2]]), "shop.user: user ids contain duplicates"),
]


@pytest.mark.parametrize(("format", "damage", "message"), DAMAGES)
def test_damaged_folders(tmp_path, tiny, format, damage, message):
    write(tiny, tmp_path / "shop", format)
    damage(tmp_path / "shop")
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / "shop", format)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", OTHERS)
def test_another_target_is_refused(tmp_path, tiny, format):
    write(tiny, tmp_path / "shop", format)
    with pytest.raises(UsageError, match="holds out pairs of 'buy', not of 'cart'; leave the target out"):
        read(tmp_path / "shop", target="cart")


@pytest.mark.parametrize("name", ["count", "users", "Items", "all", "train", "x_dict", "a.time", "test ", "val"])
def test_names_that_mean_another_file(tmp_path, tiny, name):
    edges = {name.strip(): tiny.edges["view"], "buy": tiny.edges["buy"]}
    if name.strip() == "test":
        with pytest.raises(DataError, match="a behavior cannot be called 'test'"):
            tiny.replace(edges=edges)
        return
    with pytest.raises(DataError, match="cannot be the name of a pair file, which means another; rename it"):
        write(tiny.replace(edges=edges), tmp_path / "shop", "pairs")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_leaves_nothing(tmp_path, tiny):
    wide = Pairs(tiny.edges["cart"].user, tiny.edges["cart"].item, np.arange(4, dtype=np.longdouble))
    broken = [
        (tiny.replace(edges={**tiny.edges, "a/b": tiny.edges["view"]}), OTHERS, "cannot be a file name"),
        (tiny.replace(users=Vocabulary([f"{n}\n" for n in range(6)], kind="user")), OTHERS, "contains a line break"),
        (tiny.replace(edges={**tiny.edges, "\udcff": tiny.edges["view"]}), OTHERS, "cannot be a file name"),
        (tiny.replace(metadata={"x": {1}}), OTHERS, "metadata 'x' of 'tiny' is no JSON"),
    ]
    if wide.time.dtype.itemsize > 8:
        broken.append((tiny.replace(edges={**tiny.edges, "cart": wide}), OTHERS, "of more than 64 bits; convert them"))
    for ds, formats, message in broken:
        for format in formats:
            with pytest.raises(DataError, match=message):
                write(ds, tmp_path / "shop", format)
            assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", OTHERS)
def test_only_own_folders_are_overwritten(tmp_path, tiny, format):
    place = tmp_path / "shop"
    write(tiny, place, format)
    with pytest.raises(UsageError, match="shop already exists and is not empty; choose another folder or overwrite it"):
        write(tiny, place, format)
    write(tiny.replace(name="new", splits={}), place, format, overwrite=True)
    assert_same(tiny.replace(name="new", splits={}), read(place))
    assert not any(entry.startswith("validation") for entry in os.listdir(place))
    (place / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"cannot be overwritten \(it holds thesis.tex\); only folders of"):
        write(tiny, place, format, overwrite=True)
    other = OTHERS[format == OTHERS[0]]
    with pytest.raises(UsageError, match=rf"cannot be overwritten \(.*does not describe {other} files\)"):
        check_place(place, other, overwrite=True)
    (place / "mbgraph.json").unlink()
    with pytest.raises(UsageError, match=r"cannot be overwritten \(it has no mbgraph.json\)"):
        write(tiny, place, format, overwrite=True)
    assert (place / "thesis.tex").read_text() == "years of work"
    with pytest.raises(UsageError, match="thesis.tex is a file; choose another folder"):
        write(tiny, place / "thesis.tex", format, overwrite=True)
    with pytest.raises(UnknownNameError, match="unknown format to write 'ehcf'"):
        write(tiny, tmp_path / "x", "ehcf")


@pytest.mark.parametrize("format", OTHERS)
def test_a_full_disk_leaves_the_old_folder(tmp_path, tiny, format, monkeypatch):
    write(tiny, tmp_path / "shop", format)
    before = {path.name: path.read_bytes() for path in (tmp_path / "shop").iterdir()}
    calls = []
    real = os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="cannot write .*shop: No space left on device; free some space"):
        write(tiny.replace(name="new"), tmp_path / "shop", format, overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "shop").iterdir()} == before
    assert os.listdir(tmp_path) == ["shop"]


@pytest.mark.realdata
@pytest.mark.parametrize("format", OTHERS)
def test_beibei_survives(shared_data, tmp_path, format):
    if not is_npz(shared_data / "beibei"):
        pytest.skip("no beibei")
    ds = read_npz(shared_data / "beibei")
    write(ds, tmp_path / "beibei", format)
    assert_same(ds, read(tmp_path / "beibei"))
