"""Folders that no format describes: told by the names of their files, or by hand."""

import pickle
import shlex

import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.data.catalog import load_dataset
from mbgraph.data.formats import detect, read
from mbgraph.data.formats.by_part import suggestion
from mbgraph.data.formats.content import survey
from mbgraph.data.formats.text import read_adjacency, read_pairs
from mbgraph.errors import DataError, UnknownNameError, UsageError

CLICK = [(0, 3), (0, 1), (2, 5), (2, 0), (4, 4)]
BUY = [(0, 2), (2, 1), (2, 3), (4, 0)]
VALID, TEST = [(2, 4)], [(0, 5), (4, 2)]


def lines(pairs, base=0, more=""):
    return "".join(f"{user + base} {item + base}{more}\n" for user, item in pairs)


def lists(pairs, base=0):
    table = {}
    for user, item in pairs:
        table.setdefault(user, []).append(item)
    return "".join(" ".join(str(value + base) for value in (user, *items)) + "\n" for user, items in table.items())


def matrix(pairs, kind=sparse.csr_matrix, value=1):
    user, item = np.array(pairs).T
    return pickle.dumps(kind((np.full(len(user), value), (user, item)), shape=(5, 6)))


def cells(pairs):
    return list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))


def put(folder, **contents):
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def check(ds, splits=("valid", "test"), names=("click", "buy")):
    assert ds.behaviors == names
    assert ds.target == names[-1]
    assert sorted(cells(ds.edges[names[0]])) == sorted(CLICK)
    assert sorted(cells(ds.edges[names[1]])) == sorted(BUY)
    assert {name: sorted(cells(pairs)) for name, pairs in ds.splits.items()} == {
        name: pairs for name, pairs in (("valid", VALID), ("test", TEST)) if name in splits
    }


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("write", [lines, lists])
def test_files_per_behavior_and_split_without_suffixes(tmp_path, write, base):
    put(tmp_path, click_train=write(CLICK, base), target_train=write(BUY, base))
    put(tmp_path, target_valid=write(VALID, base), target_test=write(TEST, base), click_test=write([(1, 1)], base))
    put(tmp_path, notes="three words here\n", readme_md="about")
    assert detect(tmp_path) == "by-part"
    ds = read(tmp_path)
    check(ds, names=("click", "target"))
    facts = ds.metadata["format"]
    assert facts["first_id"] == base
    assert facts["left_out"] == {"click_test": "held-out pairs of an auxiliary behavior"}
    assert facts["notes"]["click"] == ("read as pairs" if write is lines else "read as lists of items")
    assert load_dataset(tmp_path).content_hash() == ds.content_hash()


def test_every_order_of_the_words_and_every_name_of_the_split(tmp_path):
    for number, valid in enumerate(("val", "valid", "validation")):
        folder = put(tmp_path / str(number), train_click_txt=lines(CLICK), buy_train_txt=lines(BUY))
        put(folder, **{f"buy-{valid}.txt": lines(VALID), "test_buy.csv": lines(TEST)})
        check(read(folder))


def test_two_files_of_one_part_are_told(tmp_path):
    put(tmp_path, click_train=lines(CLICK), buy_train=lines(BUY), buy_test=lines(TEST), buy_val=lines(VALID))
    put(tmp_path, train_txt=lines(BUY), valid_buy=lines([(0, 0)]), valid_txt=lines(VALID))
    put(tmp_path, **{"train_click.csv": lines(CLICK)})
    ds = read(tmp_path)
    check(ds)
    assert ds.metadata["format"]["left_out"] == {
        "buy_train": "train.txt holds buy too",
        "train_click.csv": "click_train holds click too",
        "valid.txt": "buy_val holds the valid pairs too",
        "valid_buy": "buy_val holds the valid pairs too",
    }


def test_folders_of_behaviors(tmp_path):
    put(tmp_path, behavior_1__train_txt=lines(CLICK, 1), behavior_2__train_txt=lines(BUY, 1))
    put(tmp_path, behavior_2__test_txt=lines(TEST, 1))
    assert detect(tmp_path) == "by-part"
    check(read(tmp_path), ["test"], ("behavior_1", "behavior_2"))
    put(tmp_path, behavior_1__test_txt=lines([(1, 1)], 1))
    with pytest.raises(UsageError, match=r"which behavior is the target\?; name it \(--target\): behavior_1, beh"):
        read(tmp_path)
    check(read(tmp_path, target="behavior_2"), ["test"], ("behavior_1", "behavior_2"))
    pairs = put(tmp_path / "named", click__train_txt=lines(CLICK), buy__train_txt=lines(BUY))
    put(pairs, buy__test_txt=lines(TEST))
    assert detect(pairs) == "by-part"  # mbcgcn's files are lists
    check(read(pairs), ["test"])


def test_pairs_from_0_without_counts(tmp_path):
    put(tmp_path, train_txt=lines(BUY), click_txt=lines(CLICK), test_txt=lines(TEST), val_txt=lines(VALID))
    assert detect(tmp_path) == "by-part"
    check(read(tmp_path))
    (tmp_path / "train.txt").rename(tmp_path / "buy.txt")
    check(read(tmp_path))


def test_mbgcn(tmp_path):
    folder = put(tmp_path / "Tmall", data_size_txt="5 6\n", train_txt=lines(BUY), click_txt=lines(CLICK))
    put(folder, validation_txt=lines(VALID), test_txt=lines(TEST), buy_txt=lines(BUY))
    assert detect(folder) == "mbgcn"
    ds = read(folder)
    check(ds)
    assert (ds.num_users, ds.num_items) == (5, 6)
    assert ds.metadata["format"]["left_out"] == {"buy.txt": "the same as train.txt"}
    put(folder, buy_txt=lines(BUY[:2]))
    with pytest.raises(DataError, match="train.txt differs from buy.txt; remove the one that is not"):
        read(folder)
    put(folder, buy_txt=lines(BUY), data_size_txt="5 5\n")
    with pytest.raises(DataError, match=r"line 3: item id 5 is out of range; there are 5 items \(0..4\)"):
        read(folder)
    for sizes in ("5\n", "5 x\n", "0 6\n", "5 99999999999999999999\n", ""):
        put(folder, data_size_txt=sizes)
        with pytest.raises(DataError, match="data_size.txt does not hold two numbers; write the numbers of users"):
            read(folder)


def test_by_hand_in_every_content(tmp_path):
    put(tmp_path, a=lists(CLICK), b=matrix(BUY), c="user item\n" + lines(VALID))
    put(tmp_path, d=pickle.dumps([5, None, None, None, 2]))
    options = {"behaviors": {"click": "a", "buy": "b"}, "valid": "c", "test": "d"}
    ds = read(tmp_path, "by-part", target="buy", **options)
    check(ds)
    assert (ds.num_users, ds.num_items) == (5, 6)
    assert ds.metadata["format"]["notes"] == {
        "click": "read as lists of items",
        "buy": "read as a matrix",
        "valid": "read as pairs",
        "test": "read as a list of held-out items",
    }
    put(tmp_path, d=matrix(TEST, sparse.coo_matrix))
    check(read(tmp_path, "by-part", **options))  # the target is the one called buy
    put(tmp_path, a=lines(CLICK, 0, " 3 4"))
    ds = read(tmp_path, "by-part", **options)
    assert ds.metadata["format"]["notes"]["click"] == "read as pairs, further columns were left out"
    check(ds)


def test_what_ids_count_from(tmp_path):
    put(tmp_path, a=lines(CLICK, 1), b=lines(BUY, 1))
    options = {"behaviors": {"click": "a", "buy": "b"}}
    check(read(tmp_path, "by-part", **options), [])
    shifted = read(tmp_path, "by-part", base=0, **options)
    assert (shifted.num_users, shifted.num_items) == (6, 7)
    put(tmp_path, a=lines(CLICK, 0))
    with pytest.raises(DataError, match=r"a line 1: user id 0 is below 1; user ids of this format start at 1, correct"):
        read(tmp_path, "by-part", base=1, **options)
    with pytest.raises(UsageError, match="ids count from 0 or 1, not from 2"):
        read(tmp_path, "by-part", base=2, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"behaviors": {"buy": "by"}}, "has no file 'by'; did you mean 'b'|has no file 'by'; name it relative"),
        ({"behaviors": {"buy": "../x"}}, "'../x' would leave the folder"),
        ({"behaviors": {"buy": "words"}}, "words holds neither pairs nor lists of items nor a matrix; give text of"),
        ({"test": "b"}, "held-out files are named, but no behavior"),
        ({"behaviors": {"click": "b"}, "target": "buy"}, "unknown target behavior 'buy'"),
        ({"behaviors": {"click": "b"}}, "which behavior is the target"),
        ({}, "holds no files of behaviors and splits; say what they are: mbgraph data convert"),
    ],
)
def test_what_cannot_be_read(tmp_path, options, message):
    put(tmp_path, b=lines(BUY), words="no numbers at all\n")
    with pytest.raises((DataError, UsageError, UnknownNameError), match=message):
        read(tmp_path, "by-part", **options)


def test_an_unknown_folder_shows_the_line_to_write(tmp_path, monkeypatch):
    folder = put(tmp_path / "my data", clicks=lists(CLICK), purchases=lists(BUY), heldout_txt=lines(TEST))
    for look in (detect, load_dataset):
        with pytest.raises(
            DataError, match="is of no known format; say what its files are: mbgraph data conv"
        ) as error:
            look(folder)
    words = shlex.split(str(error.value).split("say what its files are: ")[1])
    assert words == [
        *("mbgraph", "data", "convert", str(folder)),
        *("--behavior", "clicks=clicks", "--behavior", "heldout=heldout.txt", "--behavior", "purchases=purchases"),
        *("--target", "purchases", "-o", "OUT"),
    ]


pair_lists = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25, unique=True)


@given(
    pair_lists, st.integers(0, 1), st.sampled_from(["pairs", "lists", "three"]), st.sampled_from(["\n", "\r\n", "\r"])
)
def test_content_against_the_writers(tmp_path_factory, pairs, base, how, end):
    """Whatever was written is told and read back; where two readings agree either will do."""
    path = tmp_path_factory.mktemp("part") / "file"
    users = [user for user, _ in pairs]
    if how == "three" and len(set(users)) == len(users):
        return  # lists of two items look the same
    text = {"pairs": lambda: lines(pairs, base), "lists": lambda: lists(pairs, base)}.get(
        how, lambda: lines(pairs, base, " 7")
    )()
    path.write_bytes(text.replace("\n", end).encode())
    found = survey(path)
    assert found.lowest == min(min(pair) for pair in pairs) + base
    if found.kind == "pairs":
        assert how != "lists" or len(set(users)) == len(users)
        back = read_pairs(path, base=base, more_columns=found.columns > 2)
    else:
        assert how == "lists"
        back, _ = read_adjacency(path, base=base)
    assert sorted(cells(back)) == sorted(pairs)


@pytest.mark.parametrize("header", ["", "user_id,item_id\n", "user_id, item_id\n"])
def test_pairs_between_commas(tmp_path, header):
    def commas(pairs):
        return header + lines(pairs).replace(" ", ",")

    put(
        tmp_path,
        click_train_csv=commas(CLICK),
        buy_train_csv=commas(BUY).replace(",", ", "),
        buy_valid_csv=commas(VALID).replace("\n", "\r\n"),
        buy_test_csv=commas(TEST),
    )
    for file in tmp_path.iterdir():
        file.rename(file.with_name(file.name.replace("_csv", ".csv")))
    assert detect(tmp_path) == "by-part"
    check(read(tmp_path))


def test_empty_lines_under_a_header_are_passed_over(tmp_path):
    put(tmp_path, click_train="user item\n\n" + lines(CLICK), buy_train="user item\n \n" + lines(BUY))
    put(tmp_path, buy_valid=lines(VALID), buy_test=lines(TEST))
    check(read(tmp_path))


def test_further_columns_between_commas_are_left_out_with_a_word(tmp_path):
    put(tmp_path, click_train=lines(CLICK, more=" 5").replace(" ", ","), buy_train=lists(BUY).replace(" ", ","))
    put(tmp_path, buy_test=lines(TEST).replace(" ", ","), buy_valid=lines(VALID))
    ds = read(tmp_path)
    check(ds)
    assert "further columns were left out" in str(ds.metadata["format"])


@pytest.mark.parametrize("log", ["user,item,kind\n1,2,view\n", "1,2,view,7\n1,3,buy,8\n"])
def test_an_event_log_between_commas_is_no_part(tmp_path, log):
    put(tmp_path, events=log)
    assert suggestion(tmp_path) is None
    put(tmp_path, click_train="user,item,time\n0,1,5\n1,0,6\n", buy_test="0,2\n", buy_train="1,2\n0,0\n")
    assert "events" not in suggestion(tmp_path)
    assert read(tmp_path).behaviors == ("click", "buy")  # by their names, with further columns
