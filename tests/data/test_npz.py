import io
import json
import os
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats import npz as module
from mbgraph.data.formats.npz import is_npz, read_npz, write_npz
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.data.synthetic import demo
from mbgraph.errors import DataError, RunError, UsageError

IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))
NAMES = st.sampled_from(["view", "cart", "buy", "购买", "add to cart", "2", "users", "meta"])


@st.composite
def vocabularies(draw, size, kind):
    ids = draw(
        st.one_of(
            st.none(),
            st.lists(IDS, min_size=size, max_size=size, unique=True),
            st.lists(st.integers(-(2**63), 2**63 - 1), min_size=size, max_size=size, unique=True),
            st.lists(st.from_regex(r"0{0,2}[1-9]", fullmatch=True), min_size=size, max_size=size, unique=True),
        )
    )
    return Vocabulary(ids, size=size, kind=kind)


@st.composite
def datasets(draw):
    users, items = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    cell = st.tuples(st.integers(0, users - 1), st.integers(0, items - 1))
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    target = draw(st.sampled_from(names))

    def pairs(cells):
        dtype = draw(st.sampled_from([None, "<i4", "<i8", ">i8", "<u8", "<f4", "<f8", "|i1"]))
        time = None if dtype is None else np.array(range(len(cells), 0, -1)).astype(dtype)
        return Pairs(*np.array(cells, np.int64).reshape(-1, 2).T, time)

    edges = {name: pairs(draw(st.lists(cell, min_size=1, max_size=12, unique=True))) for name in names}
    bought = set(zip(edges[target].user.tolist(), edges[target].item.tolist(), strict=True))
    free = st.lists(cell.filter(lambda pair: pair not in bought), max_size=4, unique=True)
    splits = {}
    if len(bought) < users * items:
        splits = {split: pairs(draw(free)) for split in draw(st.sets(st.sampled_from(["valid", "test"])))}
    metadata = draw(
        st.dictionaries(
            st.sampled_from(["splits", "seed", "note"]), st.one_of(st.integers(), st.text(), st.just([{"a": 1}]))
        )
    )
    if draw(st.booleans()):
        metadata["meta"] = {"source": "somewhere", "notes": {"kept": [1, 2.5, None]}}
    vocabulary = {kind: draw(vocabularies(size, kind)) for kind, size in (("user", users), ("item", items))}
    return MultiBehaviorDataset(
        draw(st.text()), vocabulary["user"], vocabulary["item"], edges, target, splits, metadata
    )


def assert_same(one, other):
    assert (one.name, one.target, one.behaviors, tuple(one.splits)) == (
        other.name,
        other.target,
        other.behaviors,
        tuple(other.splits),
    )
    assert one.metadata == other.metadata
    for ours, theirs in ((one.users, other.users), (one.items, other.items)):
        assert ours.ids.tolist() == theirs.ids.tolist()
        assert ours.ids.dtype == theirs.ids.dtype
        assert ours.is_identity == theirs.is_identity
    for name in (*one.edges, *one.splits):
        ours, theirs = ({**ds.edges, **ds.splits}[name] for ds in (one, other))
        assert ours.user.tolist() == theirs.user.tolist()
        assert ours.item.tolist() == theirs.item.tolist()
        assert (ours.time is None) == (theirs.time is None)
        if ours.time is not None:
            assert ours.time.dtype == theirs.time.dtype
            assert ours.time.tolist() == theirs.time.tolist()


@given(datasets())
def test_round_trip_loses_nothing(tmp_path_factory, ds):
    path = tmp_path_factory.mktemp("round") / "ds"
    write_npz(ds, path)
    once = read_npz(path)
    assert_same(ds, once)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    write_npz(once, path, overwrite=True)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_demo_survives_with_its_truth(tmp_path):
    from mbgraph.data.synthetic import planted

    write_npz(demo(), tmp_path / "demo")
    again = read_npz(tmp_path / "demo")
    assert again.content_hash() == demo().content_hash()
    assert np.array_equal(planted(again).scores([3]), planted(demo()).scores([3]))


@pytest.fixture
def shop(tmp_path, tiny):
    path = tmp_path / "shop"
    write_npz(tiny, path)
    return path


def edit(path, **changes):
    meta = json.loads((path / "meta.json").read_text())
    for key, value in changes.items():
        if value is None:
            del meta[key]
        else:
            meta[key] = value
    (path / "meta.json").write_text(json.dumps(meta))


def save(path, **arrays):
    old = dict(np.load(path, allow_pickle=False))
    np.savez(path, allow_pickle=True, **{name: array for name, array in {**old, **arrays}.items() if array is not None})


def test_foreign_folder_with_text_ids(shop):
    """Without a word in meta.json ids are text, so that nothing is lost: 007 and 7 are two users."""
    (shop / "users.txt").write_text("7\n007\n1\n2\n3\n4\r\n", newline="")
    edit(shop, ids=None)
    users = read_npz(shop).users
    assert users.ids.tolist() == ["7", "007", "1", "2", "3", "4"]
    assert users.find([7, "007"]).tolist() == [0, 1]


def test_unknown_keys_of_meta_are_kept(shop, tmp_path):
    edit(shop, source="a paper", kept={"users": 5})
    ds = read_npz(shop)
    assert ds.metadata["meta"] == {"source": "a paper", "kept": {"users": 5}}
    write_npz(ds, tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "meta.json").read_text())["kept"] == {"users": 5}


def test_graph_of_a_read_dataset(shop):
    graph = read_npz(shop).graph
    assert (graph.num_nodes("user"), graph.num_nodes("item")) == (6, 5)
    assert graph.num_edges("view") == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({key: None}, f"meta.json lacks the key '{key}'; it needs name, users, items, ") for key in module._REQUIRED),
        ({"users": 0}, "meta.json: 'users' must be a positive integer, not 0"),
        ({"items": True}, "'items' must be a positive integer, not True"),
        ({"items": 10**15}, "'items' must be a positive integer, not 1000000000000000"),
        ({"users": "6"}, "'users' must be a positive integer, not '6'"),
        ({"name": 3}, "'name' must be text, not 3"),
        ({"behaviors": "view"}, "'behaviors' must be a list of names, not 'view'"),
        ({"behaviors": ["view", "view"]}, "'behaviors' names one twice"),
        (
            {"behaviors": ["../view", "buy"]},
            r"'behaviors': '../view' cannot be a file name; use letters, digits, - and _",
        ),
        ({"behaviors": ["/etc/passwd", "buy"]}, "'/etc/passwd' cannot be a file name"),
        ({"behaviors": ["..", "buy"]}, r"'\.\.' cannot be a file name"),
        ({"behaviors": ["a\0b", "buy"]}, "cannot be a file name"),
        ({"behaviors": [3, "buy"]}, "3 is no name; name it by text"),
        ({"behaviors": ["view", "valid", "buy"]}, "cannot be called 'valid', which is a split; rename it"),
        ({"splits": ["train"]}, "unknown split 'train'; splits are valid, test"),
        ({"target": "by"}, "target 'by' is none of the behaviors view, cart, buy; did you mean 'buy'?"),
        ({"counts": [9, 4]}, r"'counts' must be an object, not \[9, 4\]"),
        ({"counts": {"view": 9}}, "'counts' gives no number of cart pairs; add it"),
        (
            {"counts": {"view": 8, "cart": 4, "buy": 5, "valid": 2, "test": 4}},
            r"view.npz: user.npy holds 9 entries, meta.json says 8; correct the counts or restore the file",
        ),
        (
            {"counts": {"view": 9, "cart": 4, "buy": 5, "valid": 2, "test": 4, "click": 1}},
            "'counts' names 'click', which is no behavior or split",
        ),
        (
            {"counts": {"view": 31, "cart": 4, "buy": 5, "valid": 2, "test": 4}},
            "says 31 view pairs, but 6 users and 5 items make 30",
        ),
        ({"ids": {"users": "text"}}, 'ids of users are \'text\'; write "int" or "str"'),
        ({"ids": {"users": "int"}}, "users.txt line 1: 'u0' is no integer of 64 bits, or not written plainly; correct"),
        ({"ids": ["users"]}, "'ids' must be an object"),
        ({"metadata": 3}, "'metadata' must be an object, not 3"),
        ({"users": 7}, "users.txt holds 6 ids, meta.json says 7 users; restore the file"),
    ],
)
def test_meta_that_disagrees(shop, changes, message):
    edit(shop, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read_npz(shop)
    assert "\n" not in str(caught.value)
    assert str(shop) in str(caught.value) or "a split" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "meta.json is not valid JSON"), ("[1]", "is not a JSON object"), ("[" * 100_000, "meta.json is")],
)
def test_meta_that_is_no_object(shop, text, message):
    (shop / "meta.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_npz(shop)


NINE = np.zeros(9, np.int64)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"user": np.array([None] * 9)},
            "view.npz: user.npy is an object array, which may carry code; save it as integers",
        ),
        ({"time": np.array([{}] * 9)}, "view.npz: time.npy is an object array"),
        ({"user": NINE.astype(float)}, "view.npz: user ids are float64, not integers; number them from 0"),
        ({"user": NINE + np.nan}, "view.npz: 9 user ids are NaN; drop or fill them"),
        ({"user": NINE.astype(bool)}, "view.npz: user.npy is bool, not numbers; map original ids with"),
        ({"item": np.array(["a"] * 9)}, "view.npz: item.npy is <U1, not numbers"),
        ({"time": NINE.astype("M8[s]")}, r"time.npy is datetime64\[s\], not numbers"),
        ({"user": NINE - 1}, "view.npz: negative user id -1; ids start at 0"),
        ({"user": NINE + 6}, r"view.npz: user id 6 is out of range; the dataset has 6 users \(0..5\)"),
        ({"item": NINE + 5}, r"view.npz: item id 5 is out of range; the dataset has 5 items \(0..4\)"),
        ({"item": NINE.astype(np.uint64) + 2**63}, "item id 9223372036854775808 is out of range"),
        (
            {"user": NINE, "item": NINE},
            "view.npz: 8 duplicate pairs, the first is user 0 and item 0; keep the earliest",
        ),
        ({"user": NINE.reshape(3, 3)}, r"user.npy has shape \(3, 3\), not \(N,\)"),
        ({"item": None}, "view.npz holds no array 'item'; it needs user, item"),
        ({"user": NINE[:8]}, "view.npz: user.npy holds 8 entries, meta.json says 9"),
        ({"time": NINE[:8]}, "view.npz: time.npy holds 8 entries, meta.json says 9"),
    ],
)
def test_bad_arrays(shop, arrays, message):
    save(shop / "view.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        read_npz(shop)
    assert "\n" not in str(caught.value)


def test_members_that_nobody_needs_are_not_looked_at(shop, tiny):
    save(shop / "view.npz", extra=np.array([{"code": 1}]))
    assert read_npz(shop).content_hash() == tiny.content_hash()


def test_missing_files_are_named(shop):
    (shop / "cart.npz").unlink()
    with pytest.raises(DataError, match=r"cart.npz is missing, but meta.json names it; restore the file"):
        read_npz(shop)


def test_missing_ids_are_named(shop):
    (shop / "items.txt").unlink()
    with pytest.raises(DataError, match=r"items.txt is missing, but meta.json says that it holds the ids"):
        read_npz(shop)


def test_held_out_train_pairs_name_the_folder(shop):
    save(shop / "test.npz", user=np.array([0, 1, 2, 3]), item=np.array([0, 1, 0, 1]))
    with pytest.raises(DataError, match=r"shop: 2 test pairs of 'tiny' are also train pairs of 'buy'"):
        read_npz(shop)


def test_duplicate_ids_name_the_file(shop):
    (shop / "users.txt").write_text("a\nb\nc\na\ne\nf\n")
    with pytest.raises(DataError, match=r"users.txt: user ids contain duplicates such as 'a'"):
        read_npz(shop)


@pytest.mark.parametrize("kind", ["u0\nu1\n", b"\xff\n"])
def test_damaged_id_files(shop, kind):
    (shop / "users.txt").write_bytes(kind if isinstance(kind, bytes) else kind.encode())
    with pytest.raises(DataError, match=r"users.txt"):
        read_npz(shop)


@pytest.mark.parametrize("keep", [0, 3, 30, 200, -30, -5])
def test_truncated_files(shop, keep):
    data = (shop / "view.npz").read_bytes()
    (shop / "view.npz").write_bytes(data[:keep])
    with pytest.raises(DataError, match=r"view.npz is truncated or no npz file \(.+\); restore the file"):
        read_npz(shop)


@given(st.data())
def test_damaged_bytes_never_escape_as_anything_else(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("damage") / "x.npz"
    np.savez_compressed(file, user=np.arange(50), item=np.arange(50) % 7)
    damaged = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(damaged))
    try:
        arrays = module.read_arrays(file, ("user", "item"), ("time",), 50)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 (both ends are right)
    else:
        assert arrays["user"].tolist() == list(range(50))


def member(header, body=b""):
    header = header.encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


def pack(path, user, method=zipfile.ZIP_DEFLATED):
    item = io.BytesIO()
    np.save(item, NINE)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("user.npy", user)
        archive.writestr("item.npy", item.getvalue())


HEADER = "{'descr': '<i8', 'fortran_order': False, 'shape': (%s,), }\n"


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (member(HEADER % 10**15, b"\0" * 72), "user.npy claims 8000000000000000 bytes and holds 72; restore the file"),
        (member(HEADER % 9, b"\0" * 80), "user.npy claims 72 bytes and holds 80"),
        (member(HEADER % -1, b"\0" * 72), "user.npy claims -8 bytes and holds 72"),
        (member("{'descr': '<i8', 'shape': (9,)}\n", b"\0" * 72), "truncated or no npz file"),
        (member("__import__('os').system('true')\n"), "truncated or no npz file"),
        (member("(" * 9_000 + "\n"), "truncated or no npz file"),
        (member("{'descr': '|O', 'fortran_order': False, 'shape': (9,), }\n", b"x"), "user.npy is an object array"),
        (
            member("{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (9,), }\n", b"\0" * 72),
            "not numbers",
        ),
        (b"nothing", "truncated or no npz file"),
        (b"\x93NUMPY\x09\x00", "user.npy is of npy version"),
    ],
)
def test_hostile_members(shop, user, message):
    pack(shop / "view.npz", user)
    with pytest.raises(DataError, match=message):
        read_npz(shop)


def test_sizes_that_no_compression_reaches(shop, monkeypatch):
    """A directory entry that claims petabytes is refused before anything is unpacked."""
    real = zipfile.ZipFile.infolist

    def lying(self):
        for info in real(self):
            info.file_size = 2**50
            yield info

    monkeypatch.setattr(zipfile.ZipFile, "infolist", lying)
    with pytest.raises(DataError, match=r"view.npz: user.npy claims 1125899906842624 bytes out of \d+, the file has"):
        read_npz(shop)


def test_other_compression_is_refused(shop):
    pack(shop / "view.npz", b"", zipfile.ZIP_LZMA)
    with pytest.raises(DataError, match=r"is packed by method 14; save it with numpy.savez_compressed"):
        read_npz(shop)


def test_encrypted_members_are_refused(shop, monkeypatch):
    real = zipfile.ZipFile.infolist

    def locked(self):
        for info in real(self):
            info.flag_bits |= 1
            yield info

    monkeypatch.setattr(zipfile.ZipFile, "infolist", locked)
    with pytest.raises(DataError, match=r"user.npy is encrypted; save it without a password"):
        read_npz(shop)


def test_a_link_out_of_the_folder_is_refused(shop, tmp_path):
    os.replace(shop / "view.npz", tmp_path / "view.npz")
    (shop / "view.npz").symlink_to(tmp_path / "view.npz")
    with pytest.raises(DataError, match=r"'view.npz' would leave the folder"):
        read_npz(shop)


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_failing_write_leaves_nothing(tmp_path, tiny, monkeypatch):
    calls = []

    def full(file, **arrays):
        calls.append(arrays)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        file.write(b"part")

    monkeypatch.setattr(module.np, "savez_compressed", full)
    place = tmp_path / "new"
    with pytest.raises(
        RunError, match=f"cannot write {place}: No space left on device; free some space or choose another"
    ):
        write_npz(tiny, place)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("step", ["savez_compressed", "publish"])
def test_a_failing_overwrite_leaves_the_old_folder(shop, tiny, monkeypatch, step):
    before = {path.name: path.read_bytes() for path in shop.iterdir()}
    if step == "publish":
        real = os.replace

        def refuse(source, target):
            if str(source).endswith(".tmp") and os.path.isdir(source):
                raise OSError(5, "Input/output error")
            real(source, target)

        monkeypatch.setattr(module.os, "replace", refuse)
    else:
        monkeypatch.setattr(module.np, step, lambda file, **arrays: file.write(1 / 0))
    with pytest.raises((RunError, ZeroDivisionError)):
        write_npz(tiny.replace(name="other"), shop, overwrite=True)
    assert {path.name: path.read_bytes() for path in shop.iterdir()} == before
    assert [path.name for path in shop.parent.iterdir()] == ["shop"]


def test_overwriting_replaces_the_whole_folder(shop, tiny):
    write_npz(tiny.replace(splits={}, users=Vocabulary(size=6)), shop, overwrite=True)
    assert listing(shop) == ["buy.npz", "cart.npz", "items.txt", "meta.json", "view.npz"]
    assert [path.name for path in shop.parent.iterdir()] == ["shop"]


def test_overwriting_is_asked_for(shop, tiny, tmp_path):
    with pytest.raises(
        UsageError, match=r"shop already exists and is not empty; choose another folder or overwrite it"
    ):
        write_npz(tiny, shop)
    (tmp_path / "empty").mkdir()
    write_npz(tiny, tmp_path / "empty")
    assert is_npz(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="file is a file; choose another folder"):
        write_npz(tiny, tmp_path / "file", overwrite=True)


@pytest.mark.parametrize(("name", "message"), [("thesis.tex", "it holds thesis.tex"), ("a.npz", "it has no meta.json")])
def test_other_folders_are_never_overwritten(tmp_path, tiny, name, message):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / name).write_text("years of work")
    with pytest.raises(UsageError, match=rf"home is no dataset folder \({message}\); only datasets are overwritten"):
        write_npz(tiny, tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / name).read_text() == "years of work"


def test_a_link_to_a_folder_stays_a_link(shop, tiny, tmp_path):
    (tmp_path / "link").symlink_to(shop)
    write_npz(tiny.replace(name="other"), tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert read_npz(shop).name == "other"


def test_what_cannot_be_written_is_said_before_anything_is(tmp_path, tiny):
    for ds, message in [
        (tiny.replace(edges={**tiny.edges, "a/b": tiny.edges["view"]}), "'a/b' cannot be a file name"),
        (
            tiny.replace(users=Vocabulary([f"u{n}\n" for n in range(6)], kind="user")),
            r"user id 'u0\\n' contains a line",
        ),
        (tiny.replace(users=Vocabulary([f"u{n}\udcff" for n in range(6)], kind="user")), "cannot be written as UTF-8"),
        (tiny.replace(metadata={"x": {1, 2}}), "metadata 'x' of 'tiny' is no JSON"),
    ]:
        with pytest.raises(DataError, match=message):
            write_npz(ds, tmp_path / "out")
        assert listing(tmp_path) == []


def test_an_unwritable_place(tmp_path, tiny):
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        RunError, match=r"cannot write .*inner: (File exists|Not a directory); free some space or choose another folder"
    ):
        write_npz(tiny, tmp_path / "file" / "inner")


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["beibei", "ijcai15", "taobao15k", "taobao_noview", "tmall10k", "tmall_noview"])
def test_real_data_survive(shared_data, tmp_path, name):
    if not is_npz(shared_data / name):
        pytest.skip(f"no {name}")
    ds = read_npz(shared_data / name)
    write_npz(ds, tmp_path / name)
    assert_same(ds, read_npz(tmp_path / name))
    assert ds.metadata["meta"]["source"]
