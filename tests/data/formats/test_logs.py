"""Event tables: MISSL's, RecBole's and plain logs, which are split as from_events does."""

import pandas as pd
import pytest

from mbgraph.data.events import from_events
from mbgraph.data.formats import detect, read
from mbgraph.errors import DataError, UnknownNameError, UsageError

LOG = pd.DataFrame(
    [
        (1, 5, "view", 10),
        (2, 7, "view", 11),
        (1, 5, "buy", 12),
        (1, 6, "buy", 13),
        (2, 7, "buy", 14),
        (1, 7, "buy", 15),
        (4, 5, "cart", 16),
        (1, 5, "buy", 17),
    ],
    columns=["user", "item", "behavior", "time"],
)


def assert_like(ds, **arguments):
    wanted = from_events(LOG, target="buy", name="shop", **{"time": "time", **arguments})
    assert ds.content_hash() == wanted.content_hash()
    assert (ds.name, ds.behaviors, ds.target) == (wanted.name, wanted.behaviors, wanted.target)
    assert ds.users.ids.tolist() == wanted.users.ids.tolist()
    assert ds.items.ids.tolist() == wanted.items.ids.tolist()
    for name, pairs in (*wanted.edges.items(), *wanted.splits.items()):
        found = {**ds.edges, **ds.splits}[name]
        assert (found.user.tolist(), found.item.tolist()) == (pairs.user.tolist(), pairs.item.tolist())
        if "time" not in arguments:
            assert found.time.tolist() == pairs.time.tolist()
    assert {key: value for key, value in ds.metadata.items() if key != "format"} == wanted.metadata


def test_missl(tmp_path):
    file = tmp_path / "shop.txt"
    LOG.to_csv(file, sep="\t", header=False, index=False)
    assert detect(file) == "missl"
    ds = read(file)
    assert_like(ds)
    assert ds.metadata["format"] == {"name": "missl", "files": ["shop.txt"], "first_id": 1}
    assert_like(read(file, split="ratio:0.5,0.25,0.25"), split="ratio:0.5,0.25,0.25")


def test_missl_with_fractions_of_seconds_and_small_blocks(tmp_path, monkeypatch):
    from mbgraph.data.formats import text

    monkeypatch.setattr(text, "BLOCK", 25)
    file = tmp_path / "shop.txt"
    LOG.assign(time=LOG["time"] + 0.5).to_csv(file, sep="\t", header=False, index=False)
    assert read(file).edges["view"].time.tolist() == [10.5, 11.5]
    LOG.to_csv(file, sep="\t", header=False, index=False)
    assert_like(read(file))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1\t2\tbuy", "shop.txt line 2 holds 3 columns, not 4; write user, item, behavior and time"),
        ("1\t2\tbuy\tnow", "shop.txt line 2: 'now' is no time; write times as numbers"),
        ("u1\t2\tbuy\t3", "shop.txt line 2: 'u1' is no integer"),
        ("1\t-2\tbuy\t3", "shop.txt line 2: negative id -2"),
    ],
)
def test_broken_missl(tmp_path, line, message):
    (tmp_path / "shop.txt").write_text(f"1\t2\tview\t1\n{line}\n")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "shop.txt", "missl")
    (tmp_path / "shop.txt").write_text("\n")
    with pytest.raises(DataError, match="shop.txt is empty"):
        read(tmp_path / "shop.txt", "missl")


def test_missl_needs_a_target_that_it_knows(tmp_path):
    (tmp_path / "shop.txt").write_text("1\t2\tview\t1\n1\t3\tcart\t2\n")
    with pytest.raises(UsageError, match=r"which behavior is the target\?; name it \(--target\): view, cart"):
        read(tmp_path / "shop.txt")
    with pytest.raises(UnknownNameError, match="did you mean 'cart'"):
        read(tmp_path / "shop.txt", target="carts")


NAMES = {"user": "user_id:token", "item": "item_id:token", "behavior": "behavior:token", "time": "timestamp:float"}


def inter(folder, log=LOG, name="shop.inter", **names):
    log.rename(columns={**NAMES, **names}).to_csv(folder / name, sep="\t", index=False)
    return folder / name


@pytest.mark.parametrize("behavior", ["behavior:token", "label:token", "event_type:token"])
def test_recbole(tmp_path, behavior):
    file = inter(tmp_path, behavior=behavior)
    assert detect(tmp_path) == detect(file) == "recbole"
    ds = read(tmp_path)
    assert_like(ds)
    assert ds.metadata["format"] == {"name": "recbole", "files": ["shop.inter"]}
    assert_like(read(file, split="none"), split="none")


def test_recbole_without_times_or_behaviors(tmp_path):
    inter(tmp_path, LOG[["user", "item", "behavior"]])
    ds = read(tmp_path)
    assert_like(ds, time=None)
    inter(tmp_path, LOG[["user", "item", "time"]].assign(**{"label:float": 1.0}))
    ds = read(tmp_path)
    assert (ds.behaviors, ds.target) == (("interaction",), "interaction")
    assert read(tmp_path, target="buy").behaviors == ("buy",)


def test_recbole_ids_of_text(tmp_path):
    text = LOG.assign(user=["007" if user == 1 else f"u {user}" for user in LOG["user"]])
    ds = read(inter(tmp_path, text))
    assert ds.users.ids.tolist() == ["007", "u 2", "u 4"]
    assert ds.items.ids.tolist() == [5, 6, 7]


SPLITS = ["train", "train", "train", "valid", "train", "test", "train", "train"]


def test_recbole_split_by_column_and_by_file(tmp_path):
    log = LOG.assign(split=SPLITS)
    wanted = {"split": "given", "split_column": "split"}
    by_column = read(inter(tmp_path, log, split="split:token"))
    assert by_column.valid.item.tolist() == [1]
    folder = tmp_path / "parts"
    folder.mkdir()
    for part in ("train", "valid", "test"):
        inter(folder, LOG[log["split"] == part], name=f"shop.{part}.inter")
    assert detect(folder) == "recbole"
    by_file = read(folder)
    assert by_file.content_hash() == by_column.content_hash()
    assert by_file.metadata["format"]["files"] == ["shop.test.inter", "shop.train.inter", "shop.valid.inter"]
    assert read(folder / "shop.train.inter").content_hash() == by_column.content_hash()
    same = from_events(log, target="buy", time="time", **wanted)
    assert by_column.content_hash() == same.content_hash()
    (folder / "shop.train.inter").unlink()
    with pytest.raises(DataError, match=r"shop.train.inter is missing; restore the file"):
        read(folder)


def test_recbole_nodes_without_interactions(tmp_path):
    inter(tmp_path)
    (tmp_path / "shop.user").write_text("user_id:token\tage:float\n9\t3\n1\t4\n2\t5\n")
    (tmp_path / "shop.item").write_text("item_id:token\n5\nnew\n")
    ds = read(tmp_path)
    assert ds.users.ids.tolist() == [1, 2, 4, 9]
    assert ds.items.ids.tolist() == ["5", "6", "7", "new"]
    assert ds.metadata["format"]["files"] == ["shop.inter", "shop.user", "shop.item"]
    assert ds.test.item.tolist() == read(tmp_path / "shop.inter").test.item.tolist()


def put(name, text):
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            put("shop.inter", "user_id\titem_id\n1\t2\n"),
            DataError,
            "shop.inter line 1 is no header of RecBole; name every",
        ),
        (put("shop.inter", "user_id:token\titem_id:token\n"), DataError, "shop.inter is empty"),
        (
            put("shop.inter", "user_id:token\titem_id:token\n1\t2\t3\n"),
            DataError,
            "cannot read .*shop.inter .*Expected 2",
        ),
        (put("shop.inter", "user_id:token\titem_id:token\n\t2\n"), DataError, "shop.inter has an empty user id"),
        (
            put("shop.inter", "user_id:token\tx:float\n1\t2\n"),
            DataError,
            "shop.inter has no column 'item_id'; name the",
        ),
        (put("shop.inter", b"user_id:token\xff\t\n"), DataError, "shop.inter line 1 is no text"),
        (put("shop.inter", b"user_id:token\titem_id:token\n1\t\xff\n"), DataError, "cannot read .*shop.inter"),
        (
            put("other.inter", "user_id:token\titem_id:token\n1\t2\n"),
            DataError,
            r"several datasets \(other, shop\); give the",
        ),
        (
            put("shop.train.inter", "user_id:token\titem_id:token\n1\t2\n"),
            DataError,
            "holds shop.inter and parts of it",
        ),
        (put("shop.user", "id:token\n1\n"), UnknownNameError, "unknown column of .*shop.user 'user_id'"),
        (
            put("mbgraph.json", "{}"),
            DataError,
            "mbgraph.json does not describe recbole files; restore the file or remove",
        ),
    ],
)
def test_broken_recbole(tmp_path, damage, error, message):
    inter(tmp_path)
    damage(tmp_path)
    with pytest.raises(error, match=message) as caught:
        read(tmp_path, "recbole")
    assert "\n" not in str(caught.value)


def test_event_logs_with_columns_named(tmp_path):
    file = tmp_path / "shop.csv"
    LOG.rename(columns={"user": "U", "behavior": "how"}).to_csv(file, index=False)
    assert detect(file) == "events"
    assert_like(read(file, user="U", behavior="how", time="time"))
    LOG.to_parquet(tmp_path / "log.parquet")
    assert_like(read(tmp_path / "log.parquet", time="time", name="shop"))
    with pytest.raises(UnknownNameError, match="unknown column 'user'"):
        read(file)
