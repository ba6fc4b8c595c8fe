"""A file counts by what it holds and by what the format defines, never by how its name begins."""

import json
import pickle

import numpy as np
import pytest
import scipy.sparse as sparse

from mbgraph.data.check import check
from mbgraph.data.formats import detect, read
from mbgraph.data.formats.matrices import read_matrix
from mbgraph.errors import DataError

VIEW = [(0, 3), (0, 1), (2, 5), (2, 0), (4, 4)]
BUY = [(0, 2), (2, 1), (4, 0)]
TEST = [(0, 5), (4, 2)]
SHAPE = (5, 6)


def matrix(pairs, kind=sparse.csr_matrix, values=1, shape=SHAPE):
    user, item = np.array(pairs).T
    return kind((np.full(len(user), values), (user, item)), shape=shape)


def put(path, value):
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value))


@pytest.fixture
def mbgmn(tmp_path):
    folder = tmp_path / "Tmall"
    folder.mkdir()
    put(folder / "trn_pv", matrix(VIEW))
    put(folder / "trn_buy", matrix(BUY))
    held = dict(TEST)
    put(folder / "tst_int", [held.get(user) for user in range(SHAPE[0])])
    return folder


@pytest.fixture
def sslrec(tmp_path):
    folder = tmp_path / "tmall"
    folder.mkdir()
    put(folder / "train_mat_pv.pkl", matrix(VIEW))
    put(folder / "train_mat_buy.pkl", matrix(BUY))
    put(folder / "test_mat.pkl", matrix(TEST, sparse.coo_matrix))
    return folder


def left_out(ds):
    return ds.metadata["format"]["left_out"]


class TestPrefixes:
    def test_other_things_that_begin_with_trn(self, mbgmn):
        put(mbgmn / "trn_catDict", {"a": {1: [2]}})
        put(mbgmn / "trn_notes", b"not even a pickle")
        put(mbgmn / "trn_pv.part1.rar", b"Rar!\x1a\x07\x00 and more")
        put(mbgmn / "trn_cart.zip", b"PK\x03\x04 and more")
        put(mbgmn / "trn_iiMat", matrix([(0, 1)], shape=(6, 6)))
        put(mbgmn / "trn_mat", matrix([*VIEW, *BUY, *TEST]))
        put(mbgmn / "trn_all", matrix([*VIEW, *BUY]))
        put(mbgmn / "trn_share.pkl", matrix([(1, 1), (3, 2)]))
        (mbgmn / "trn_folder").mkdir()
        assert detect(mbgmn) == "csr-pickle"
        ds = read(mbgmn)
        assert ds.behaviors == ("pv", "share", "buy")
        assert left_out(ds) == {
            "trn_all": "joins buy, pv",
            "trn_cart.zip": "a zip archive: unpack it to read what it holds",
            "trn_catDict": "no matrix of users and items",
            "trn_iiMat": "6 x 6, where users x items are 5 x 6",
            "trn_mat": "holds the held-out pairs too",
            "trn_notes": "no matrix of users and items",
            "trn_pv.part1.rar": "a RAR archive: unpack it to read what it holds",
        }

    def test_what_is_called_like_a_behavior_must_be_one(self, mbgmn):
        put(mbgmn / "trn_cart", {1: 2})
        with pytest.raises(DataError, match="trn_cart holds no sparse matrix"):
            read(mbgmn)
        put(mbgmn / "trn_cart", matrix([(0, 1)], shape=(6, 6)))
        with pytest.raises(DataError, match="trn_cart is 6 x 6, not 5 x 6|is 5 x 6, not 6 x 6"):
            read(mbgmn)

    def test_code_in_a_file_of_another_name_is_left_out_and_never_run(self, mbgmn, tmp_path):
        mark = tmp_path / "mark"
        put(mbgmn / "trn_catDict", b"cposix\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")
        assert left_out(read(mbgmn)) == {"trn_catDict": "no matrix of users and items"}
        assert not mark.exists()

    def test_pair_files_and_lists(self, tmp_path):
        pairs = tmp_path / "pairs"
        pairs.mkdir()
        (pairs / "count.txt").write_text('{"user": 5, "item": 6}')
        for name, text in {"view": "1 2\n", "buy": "2 2\n", "share": "3 3\n"}.items():
            (pairs / f"{name}.txt").write_text(text)
        (pairs / "item_list.txt").write_text("org_id remap_id\nx 1\n")
        (pairs / "README_zh.txt").write_text("about")
        (pairs / "empty.txt").write_text("")
        ds = read(pairs)
        assert ds.behaviors == ("view", "share", "buy")
        assert left_out(ds) == dict.fromkeys(("README_zh.txt", "empty.txt", "item_list.txt"), "no pairs")
        (pairs / "cart.txt").write_text("words")
        with pytest.raises(DataError, match="cart.txt line 1 holds 1 columns, not 2"):
            read(pairs)
        lists = tmp_path / "lists"
        lists.mkdir()
        for name, text in {"train": "0 1 2\n1 3\n", "pv": "0 4\n", "test": "0 3\n", "share": "0 1\n"}.items():
            (lists / f"{name}.txt").write_text(text)
        (lists / "type_num.txt").write_bytes(pickle.dumps([[0.1, 0.2]]))
        (lists / "user_list.txt").write_text("org_id remap_id\n7 0\n")
        ds = read(lists)
        assert ds.behaviors == ("pv", "share", "buy")
        assert left_out(ds) == dict.fromkeys(("type_num.txt", "user_list.txt"), "no lists of items")


class TestSslrec:
    def test_intersections_are_left_out_and_a_missing_part_is_named(self, sslrec):
        put(sslrec / "train_mat_pv_buy.pkl", matrix(BUY, values=2_284_000_000_000_000_000))
        put(sslrec / "train_mat_cart_buy.pkl", matrix(BUY[:1]))
        put(sslrec / "train_mat_pv_fav_cart.pkl", matrix(BUY[:1]))
        put(sslrec / "train_mat_cate.pkl", [1, 2])
        ds = read(sslrec)
        assert ds.behaviors == ("pv", "buy")
        assert left_out(ds) == {
            "train_mat_cart_buy.pkl": "joins cart and buy; train_mat_cart.pkl is missing",
            "train_mat_cate.pkl": "no matrix of users and items",
            "train_mat_pv_buy.pkl": "joins pv and buy",
            "train_mat_pv_fav_cart.pkl": "joins pv and fav and cart; train_mat_fav.pkl, train_mat_cart.pkl are missing",
        }

    def test_a_behavior_of_two_words_is_one(self, sslrec):
        put(sslrec / "train_mat_add_to_cart.pkl", matrix(VIEW[:2]))
        assert read(sslrec).behaviors == ("pv", "add_to_cart", "buy")

    def test_joined_behaviors_of_other_names_are_a_finding(self, sslrec):
        put(sslrec / "train_mat_meta.pkl", matrix(BUY[:2]))
        ds = read(sslrec)
        assert ds.behaviors == ("pv", "meta", "buy")
        found = [finding.text for finding in check(ds) if finding.code == "MBG122"]
        assert found == ["all 2 pairs of meta are buy pairs: a model can read the answer in it"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (99, "dropped"),
        (100, "times"),
        (1_511_539_200, "times"),
        (1_511_539_200_000_000_000, "times"),
        (2**31 * 10**9 - 1, "times"),
        (2**31 * 10**9, "dropped"),
        (1_511_539_200**2, "dropped"),
    ],
)
def test_times_are_bounded(tmp_path, value, told):
    put(tmp_path / "trn_buy", matrix(BUY, values=value))
    assert read_matrix(tmp_path / "trn_buy").values == told


ALIASES = ("val", "valid", "validation")


def text(pairs, base=0, blank=" "):
    return "".join(f"{user + base}{blank}{item + base}\n" for user, item in pairs)


def write_folder(folder, format, valid):
    """Write a folder with a validation part of one pair, (2, 2), under a name."""
    folder.mkdir()
    behaviors = {"view": VIEW, "buy": BUY}
    if format in ("pairs", "dicts"):
        (folder / "count.txt").write_text(json.dumps({"user": 5, "item": 6}))
    for name, pairs in {**behaviors, "test": TEST, valid: [(2, 2)]}.items():
        if format == "pairs":
            (folder / f"{name}.txt").write_text(text(pairs, 1))
        elif format == "dicts":
            (folder / f"{name}_dict.txt").write_text(json.dumps({str(u + 1): [i + 1] for u, i in pairs}))
        elif format == "ehcf":
            stem = f"buy.{'train' if name == 'buy' else name}.txt" if name != "view" else "view.csv"
            (folder / stem).write_text("uid\tsid\n" + text(pairs, 0, "\t"))
        elif format == "adjacency":
            (folder / f"{'train' if name == 'buy' else name}.txt").write_text(text(dict(pairs).items()))
        elif format == "mbcgcn":
            where = folder / ("view" if name == "view" else "buy")
            where.mkdir(exist_ok=True)
            (where / f"{'train' if name in behaviors else name}.txt").write_text(text(dict(pairs).items()))
        elif format == "csr-pickle":
            held = dict(pairs)
            if name in behaviors:
                put(folder / f"trn_{name}", matrix(pairs))
            else:
                put(folder / f"{'tst' if name == 'test' else name}_int", [held.get(user) for user in range(5)])
        elif format == "sslrec":
            put(folder / (f"train_mat_{name}.pkl" if name in behaviors else f"{name}_mat.pkl"), matrix(pairs))
        elif format == "mbgcn":
            (folder / "data_size.txt").write_text("5 6")
            (folder / f"{'train' if name == 'buy' else name}.txt").write_text(text(pairs))
        elif format == "by-part":
            stem = f"{name}_train" if name in behaviors else f"buy_{name}"
            (folder / stem).write_text(text(pairs))
    return folder


FORMATS = ("pairs", "dicts", "ehcf", "adjacency", "mbcgcn", "csr-pickle", "sslrec", "mbgcn", "by-part")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("valid", ALIASES)
def test_validation_has_three_names_in_every_format(tmp_path, format, valid):
    folder = write_folder(tmp_path / "shop", format, valid)
    assert detect(folder) == format
    ds = read(folder)
    assert ds.behaviors == ("view", "buy")
    assert (ds.valid.user.tolist(), ds.valid.item.tolist()) == ([2], [2])
    assert sorted(ds.test.item.tolist()) == [2, 5]


@pytest.mark.parametrize("format", [format for format in FORMATS if format not in ("ehcf", "by-part")])
def test_two_validation_parts_are_too_many(tmp_path, format):
    folder = write_folder(tmp_path / "shop", format, "val")
    for file in [*folder.rglob("val*"), *folder.rglob("*.val.*")]:
        file.with_name(file.name.replace("val", "validation")).write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=r"holds both val\w*\S* and val\w*\S*; remove one"):
        read(folder)
