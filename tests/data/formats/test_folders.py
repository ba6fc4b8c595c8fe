"""Folders of text and matrices as other projects write them, made by a small writer of this module's own."""

import json
import pickle
import zipfile

import numpy as np
import pytest
import scipy.sparse as sparse

from mbgraph.data.formats import PART_FORMATS, detect, read, read_part
from mbgraph.errors import DataError, UnknownNameError, UsageError

USERS, ITEMS = 5, 6
PARTS = {
    "view": [(0, 3), (0, 1), (2, 5), (2, 0), (4, 4)],
    "cart": [(0, 1), (2, 0)],
    "buy": [(0, 2), (2, 5), (4, 0)],
    "test": [(0, 5), (4, 2)],
}
"""By hand: users 1 and 3 have no edge, items are not sorted within users."""

TIMES = {"view": 1_511_539_200 + np.arange(5)}


def grouped(pairs):
    table = {}
    for user, item in pairs:
        table.setdefault(user, []).append(item)
    return table


def pair_lines(pairs, base=1, blank=" "):
    return "".join(f"{user + base}{blank}{item + base}\n" for user, item in pairs)


def lists(pairs, blank=" "):
    return "".join(blank.join(map(str, (user, *items))) + "\n" for user, items in grouped(pairs).items())


def write_pairs(folder):
    (folder / "count.txt").write_text(json.dumps({"user": USERS, "item": ITEMS}))
    for name, pairs in PARTS.items():
        (folder / f"{name}.txt").write_text(pair_lines(pairs))
    (folder / "validation.txt").write_text(pair_lines([(0, 0), (0, 4), (2, 2)]))
    (folder / "train.txt").write_text(pair_lines(PARTS["buy"]))
    (folder / "buy_dict.txt").write_text("{}")
    (folder / "all.txt").write_text("what")
    (folder / "pos_sampling.txt").write_text("1 2 0 1\n")
    (folder / "README.txt").write_text("about")


def write_dicts(folder):
    (folder / "count.txt").write_text(json.dumps({"user": USERS, "item": ITEMS}))
    for name, pairs in {**PARTS, "all": PARTS["view"], "train": PARTS["buy"]}.items():
        table = {str(user + 1): [item + 1 for item in items] for user, items in grouped(pairs).items()}
        (folder / f"{name}_dict.txt").write_text(json.dumps(table))


def write_ehcf(folder):
    (folder / "buy.train.txt").write_text("uid\tsid\n" + pair_lines(PARTS["buy"], 0, "\t"))
    (folder / "buy.test.txt").write_text("uid\tsid\n" + pair_lines(PARTS["test"], 0, "\t"))
    (folder / "cart.csv").write_text("uid\tsid\t3\n" + "".join(f"{u}\t{i}\tcart\n" for u, i in PARTS["cart"]))
    with zipfile.ZipFile(folder / "view.csv.zip", "w") as archive:
        archive.writestr("view.csv", "uid\tsid\t3\n" + "".join(f"{u}\t{i}\tview\n" for u, i in PARTS["view"]))


def write_adjacency(folder):
    for name, pairs in PARTS.items():
        (folder / f"{'train' if name == 'buy' else name}.txt").write_text(lists(pairs))
    (folder / "train_all.txt").write_text("derived")
    (folder / "pos.txt").write_bytes(pickle.dumps([[1, 2]]))
    (folder / "sparsity.split").write_text("0 1")


def write_mbcgcn(folder):
    for name in ("view", "cart", "buy"):
        (folder / name).mkdir()
        (folder / name / "train.txt").write_text(lists(PARTS[name], "\t"))
        (folder / name / "test.txt").write_text(lists(PARTS["test"] if name == "buy" else [(1, 1)], "\t"))
    (folder / "s_pre_adj_mat.npz").write_bytes(b"cache")


def matrix(name, kind=sparse.csr_matrix):
    user, item = np.array(PARTS[name]).T
    return kind((TIMES.get(name, np.ones(len(user), np.int64)), (user, item)), shape=(USERS, ITEMS))


def write_csr(folder):
    for name in ("view", "cart", "buy"):
        (folder / f"trn_{name}").write_bytes(pickle.dumps(matrix(name)))
    held = dict(PARTS["test"])
    (folder / "tst_int").write_bytes(pickle.dumps(np.array([held.get(user) for user in range(USERS)], dtype=object)))


def write_sslrec(folder):
    for name in ("view", "cart", "buy"):
        (folder / f"train_mat_{name}.pkl").write_bytes(pickle.dumps(matrix(name)))
    (folder / "train_mat_view_buy.pkl").write_bytes(pickle.dumps(matrix("buy")))
    (folder / "test_mat.pkl").write_bytes(pickle.dumps(matrix("test", sparse.coo_matrix)))


WRITERS = {
    "pairs": write_pairs,
    "dicts": write_dicts,
    "ehcf": write_ehcf,
    "adjacency": write_adjacency,
    "mbcgcn": write_mbcgcn,
    "csr-pickle": write_csr,
    "sslrec": write_sslrec,
}


def cells(pairs):
    return list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))


@pytest.fixture
def folder(tmp_path):
    """A folder in a format: ``folder("pairs")``."""

    def make(format):
        place = tmp_path / format
        place.mkdir()
        WRITERS[format](place)
        return place

    return make


@pytest.mark.parametrize("format", WRITERS)
def test_every_format_gives_the_same_dataset(folder, format):
    path = folder(format)
    assert detect(path) == format
    ds = read(path)
    assert (ds.name, ds.target, ds.behaviors) == (format, "buy", ("view", "cart", "buy"))
    assert (ds.num_users, ds.num_items) == (USERS, ITEMS)
    for name, wanted in PARTS.items():
        found = cells(ds.test if name == "test" else ds.edges[name])
        # a matrix keeps the users' order, not that of their items
        assert found == (sorted(wanted) if format in ("csr-pickle", "sslrec") else wanted)
    assert cells(ds.valid) == ([(0, 0), (0, 4), (2, 2)] if format == "pairs" else [])
    assert ds.users.is_identity
    facts = ds.metadata["format"]
    assert facts["name"] == format
    assert facts["first_id"] == (1 if format in ("pairs", "dicts") else 0)
    assert facts["duplicates"] == {}
    assert json.dumps(ds.metadata)


def test_what_was_left_out_is_told(folder):
    left_out = {format: read(folder(format)).metadata["format"]["left_out"] for format in WRITERS}
    assert left_out["pairs"] == {
        "README.txt": "no pairs",
        "all.txt": "derived from the pair files",
        "buy_dict.txt": "derived from the pair files",
        "pos_sampling.txt": "derived from the pair files",
        "train.txt": "the same as buy.txt",
    }
    assert set(left_out["dicts"]) == {"all_dict.txt", "train_dict.txt"}
    assert set(left_out["adjacency"]) == {"pos.txt", "train_all.txt"}
    assert left_out["mbcgcn"] == {
        f"{behavior}/test.txt": "held-out pairs of an auxiliary behavior" for behavior in ("cart", "view")
    }
    assert set(left_out["sslrec"]) == {"train_mat_view_buy.pkl"}
    assert left_out["ehcf"] == left_out["csr-pickle"] == {}


def test_times_of_matrices(folder):
    for format in ("csr-pickle", "sslrec"):
        ds = read(folder(format))
        assert dict(zip(cells(ds.edges["view"]), ds.edges["view"].time.tolist(), strict=True)) == dict(
            zip(PARTS["view"], TIMES["view"].tolist(), strict=True)
        )
        assert ds.edges["buy"].time is None


def test_values_that_are_neither_1_nor_times_are_told(folder):
    path = folder("csr-pickle")
    (path / "trn_cart").write_bytes(pickle.dumps(matrix("cart") * 3))
    ds = read(path)
    assert ds.edges["cart"].time is None
    assert ds.metadata["format"]["notes"] == {"cart": "values are neither 1 nor times and were left out"}


def test_duplicates_are_left_out_and_counted(folder):
    path = folder("pairs")
    (path / "view.txt").write_text(pair_lines([(4, 4), (0, 1), (4, 4), (0, 0), (0, 1)]))
    ds = read(path)
    assert cells(ds.edges["view"]) == [(4, 4), (0, 1), (0, 0)]
    assert ds.metadata["format"]["duplicates"] == {"view": 2}
    assert len(read_part(path / "view.txt", "pairs")) == 5


@pytest.mark.parametrize("format", ["ehcf", "adjacency", "mbcgcn"])
def test_sizes_may_be_given(folder, format):
    path = folder(format)
    assert read(path, users=9, items=8).num_users == 9
    with pytest.raises(DataError, match=r"line \d: item id 5 is out of range; there are 5 items \(0..4\)"):
        read(path, items=5)


def test_users_with_a_line_but_no_items_count(folder):
    path = folder("adjacency")
    (path / "cart.txt").write_text("0 1\n7\n")
    assert read(path).num_users == 8


@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("pairs", "view.txt"),
        ("dicts", "view_dict.txt"),
        ("ehcf", "view.csv.zip"),
        ("adjacency", "view.txt"),
        ("csr-pickle", "trn_view"),
    ],
)
def test_single_files(folder, format, name):
    assert format in PART_FORMATS
    file = folder(format) / name
    wanted = sorted(PARTS["view"]) if format == "csr-pickle" else PARTS["view"]
    assert cells(read_part(file, format, users=USERS, items=ITEMS)) == wanted
    assert cells(read_part(str(file), format)) == wanted
    with pytest.raises(DataError, match=r"5|out of range"):
        read_part(file, format, users=USERS, items=5)


def test_single_held_out_file_and_unknown_formats(folder):
    path = folder("csr-pickle")
    assert cells(read_part(path / "tst_int", "csr-pickle")) == PARTS["test"]
    with pytest.raises(UnknownNameError, match="unknown format of single files 'mbcgcn'"):
        read_part(path, "mbcgcn")
    with pytest.raises(UnknownNameError, match="unknown format 'par'; did you mean 'pairs'"):
        read(path, "par")


def change(name, text):
    return lambda path: (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())


BROKEN = {
    "count is cut": ("pairs", change("count.txt", '{"user": 5'), r"count.txt is not valid JSON"),
    "count is a list": ("pairs", change("count.txt", "[5, 6]"), r'count.txt is not a JSON object; write {"user": 3'),
    "count lacks items": ("pairs", change("count.txt", '{"user": 5}'), "'item' must be a positive integer, not None"),
    "count is deep": ("pairs", change("count.txt", "[" * 100_000), "count.txt is n"),
    "beyond the count": ("pairs", change("cart.txt", "1 2\n1 7\n"), r"cart.txt line 2: item id 7 is out of range"),
    "the padding": ("pairs", change("cart.txt", "0 2\n"), "cart.txt line 1: user id 0 is below 1"),
    "a cut line": ("pairs", change("test.txt", "1 2\n3"), "test.txt line 2 holds 1 columns, not 2"),
    "an empty file": ("pairs", change("validation.txt", ""), "validation.txt is empty"),
    "another train set": ("pairs", change("train.txt", "1 1\n"), "train.txt differs from buy.txt; remove the one"),
    "held out of train": (
        "pairs",
        change("test.txt", "1 3\n"),
        "1 test pairs of 'pairs' are also train pairs of 'buy'",
    ),
    "cut JSON": ("dicts", change("cart_dict.txt", '{"1": [2, 3'), "cart_dict.txt is not valid JSON: .* line 1 column"),
    "a JSON list": ("dicts", change("cart_dict.txt", "[1]"), "cart_dict.txt is not a JSON object"),
    "a key of text": ("dicts", change("cart_dict.txt", '{"u1": [2]}'), "user 'u1' is no integer; name users by"),
    "an item of text": (
        "dicts",
        change("cart_dict.txt", '{"1": ["2"]}'),
        "the items of user 1 are no list of integers",
    ),
    "a true item": ("dicts", change("cart_dict.txt", '{"1": [true]}'), "the items of user 1 are no list of integers"),
    "an item alone": ("dicts", change("cart_dict.txt", '{"1": 2}'), "the items of user 1 are no list of integers"),
    "a user twice": ("dicts", change("cart_dict.txt", '{"1": [2], "1": [3]}'), "user 1 stands twice; join the two"),
    "a large item": (
        "dicts",
        change("cart_dict.txt", '{"2": [7]}'),
        "item id 7 of user 2 is out of range; ids .* 1..6",
    ),
    "a huge item": ("dicts", change("cart_dict.txt", f'{{"2": [{10**30}]}}'), "an item id of more than 64 bits"),
    "a large user": ("dicts", change("cart_dict.txt", '{"6": [1]}'), "user id 6 is out of range; ids .* are 1..5"),
    "an empty object": ("dicts", change("cart_dict.txt", "{}"), "cart_dict.txt is empty"),
    "deep JSON": ("dicts", change("cart_dict.txt", '{"1":' + "[" * 100_000), "cart_dict.txt is not valid JSON"),
    "a header alone": ("ehcf", change("cart.csv", "uid\tsid\t3\n"), "cart.csv is empty"),
    "no header": ("ehcf", change("cart.csv", "uid\tsid\t3\n1\tx\tcart\n"), "cart.csv line 2: 'x' is no integer"),
    "no archive": ("ehcf", change("view.csv.zip", "PK what"), "view.csv.zip is truncated or no zip archive"),
    "a second line": (
        "adjacency",
        change("cart.txt", "0 1\n0 2\n"),
        "cart.txt line 2: user 0 already stands in line 1",
    ),
    "two valid sets": (
        "adjacency",
        lambda path: [(path / name).write_text("1 1\n") for name in ("val.txt", "valid.txt")],
        "holds both valid.txt and val.txt; remove one",
    ),
    "another shape": (
        "csr-pickle",
        lambda path: (path / "trn_cart").write_bytes(pickle.dumps(sparse.csr_matrix(np.eye(3)))),
        "trn_cart is 3 x 3, not 5 x 6; all files must be of one dataset",
    ),
    "a cut pickle": (
        "csr-pickle",
        lambda path: (path / "trn_cart").write_bytes((path / "trn_cart").read_bytes()[:-20]),
        "trn_cart is truncated or no pickle of arrays",
    ),
    "another length": (
        "csr-pickle",
        lambda path: (path / "tst_int").write_bytes(pickle.dumps([1, None])),
        "tst_int has 2 entries; it needs one for each of the 5 users",
    ),
    "a second valid set": (
        "sslrec",
        lambda path: [
            (path / f"{name}_mat.pkl").write_bytes((path / "test_mat.pkl").read_bytes()) for name in ("val", "valid")
        ],
        "holds both valid_mat.pkl and val_mat.pkl; remove one",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_folders_say_what_and_where(folder, what):
    format, damage, message = BROKEN[what]
    path = folder(format)
    damage(path)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_archives_of_several_files_or_of_lies(folder, monkeypatch):
    path = folder("ehcf")
    with zipfile.ZipFile(path / "view.csv.zip", "w") as archive:
        archive.writestr("view.csv", "uid\tsid\n1\t1\n")
        archive.writestr("other.csv", "uid\tsid\n1\t1\n")
    with pytest.raises(DataError, match="view.csv.zip holds 2 files, not one; unpack the table beside it"):
        read(path)
    write_ehcf(path)
    real = zipfile.ZipFile.infolist

    def lying(self):
        for info in real(self):
            info.file_size = 2**50
            yield info

    monkeypatch.setattr(zipfile.ZipFile, "infolist", lying)
    with pytest.raises(DataError, match="view.csv.zip claims 1125899906842624 bytes that it cannot hold"):
        read(path)


def test_archives_that_cannot_be_unpacked(folder):
    path = folder("ehcf")
    whole = (path / "view.csv.zip").read_bytes()
    locked = bytearray(whole)
    locked[6] |= 1
    locked[whole.index(b"PK\x01\x02") + 8] |= 1
    damaged = bytearray(whole)
    damaged[30 + len("view.csv")] ^= 0xFF
    for content, cause in ((locked, "encrypted"), (damaged, "."), (whole[:-30], "not a zip file"), (b"", "not a zip")):
        (path / "view.csv.zip").write_bytes(content)
        message = rf"view.csv.zip is truncated or no zip archive \(.*{cause}.*\); restore or unpack it"
        with pytest.raises(DataError, match=message):
            read(path)


def test_targets(folder):
    path = folder("mbcgcn")
    assert read(path, target="cart").behaviors == ("view", "buy", "cart")
    with pytest.raises(UnknownNameError, match="unknown target behavior 'by'; did you mean 'buy'"):
        read(path, target="by")
    (path / "order").mkdir()
    (path / "order" / "train.txt").write_text("0 1\n")
    with pytest.raises(
        UsageError, match=r"which behavior is the target\?; name it \(--target\): buy, cart, order, view"
    ):
        read(path)
    path = folder("adjacency")
    assert read(path, target="purchase").behaviors == ("view", "cart", "purchase")
    with pytest.raises(UsageError, match="holds cart.txt, but train.txt is the target of this format"):
        read(path, target="cart")


def test_only_the_targets_test_table_is_held_out(folder):
    path = folder("ehcf")
    (path / "cart.csv").rename(path / "cart.train.txt")
    (path / "cart.test.txt").write_text("uid\tsid\n1\t1\n")
    ds = read(path)
    assert cells(ds.test) == PARTS["test"]
    assert ds.metadata["format"]["left_out"] == {"cart.test.txt": "held-out pairs of an auxiliary behavior"}
    assert cells(read(path, target="cart").test) == [(1, 1)]


def test_names_options_and_places(folder, tmp_path):
    path = folder("pairs")
    assert read(path, name="shop").name == "shop"
    with pytest.raises(UsageError, match="format pairs has no option 'users'; leave it out"):
        read(path, users=9)
    with pytest.raises(DataError, match="count.txt is a file; give the folder, pairs datasets are made of several"):
        read(path / "count.txt", "pairs")
    with pytest.raises(DataError, match="there is no .*none; correct the path"):
        read(tmp_path / "none", "pairs")
    (path / "view.txt").unlink()
    with pytest.raises(DataError, match="holds no behavior; give the folder with the files of all behaviors"):
        read(tmp_path, "sslrec")
