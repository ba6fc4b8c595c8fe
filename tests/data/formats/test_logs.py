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


def test_recbole_label_0_is_no_positive(tmp_path):
    """Eight interactions, of which a label says that five are none."""
    file = inter(tmp_path, LOG[["user", "item"]].assign(**{"label:float": ["1", "0.0", "", "1.0", "0", "1", "0", "0"]}))
    ds = read(file, target="buy", split="none")
    wanted = LOG.iloc[[0, 3, 5]]
    assert sorted(ds.users[ds.edges["buy"].user].tolist()) == sorted(wanted["user"])
    assert ds.metadata["format"]["notes"] == {"label:float": "5 of 8 rows with 0 were left out"}
    inter(tmp_path, LOG[["user", "item"]].assign(**{"label:float": 0}))
    with pytest.raises(DataError, match=r"no row of 8 counts as an event; label is 1 in none"):
        read(file)
    by_behavior = inter(tmp_path, LOG.assign(**{"label:float": [0] + [1] * 7}))
    assert read(by_behavior, split="none").metadata["format"]["notes"] == {
        "label:float": "1 of 8 rows with 0 were left out"
    }


def test_recbole_columns_of_behaviors(tmp_path):
    view, buy = [1, 1, 0, 1, 0, 0, 1, 0], [0, 1, 1, 0, 0, 1, 0, 0]
    long = pd.DataFrame(
        [
            (user, item, name)
            for user, item, *said in zip(LOG["user"], LOG["item"], view, buy, strict=True)
            for name, value in zip(("view", "is_apply"), said, strict=True)
            if value
        ],
        columns=["user", "item", "behavior"],
    )
    columns = {"view:float": view, "is_apply:float": buy, "label:float": 1, "rating:float": 3, "click:float": 7}
    file = inter(tmp_path, LOG[["user", "item"]].assign(**columns))
    ds = read(file, target="is_apply", split="none")
    wanted = from_events(long, target="is_apply", split="none")
    assert ds.content_hash() == wanted.content_hash()
    assert ds.metadata["format"]["notes"] == {
        "view:float": "a behavior: rows with 1 are its events",
        "is_apply:float": "a behavior: rows with 1 are its events",
        "label:float": "not read, as the behaviors are view, is_apply",
        "rating:float": "not read: it is neither an id, a time, a split nor a behavior",
        "click:float": "not read: it holds other values than 0 and 1",
        "rows": "2 of 8 rows without any behavior were left out",
    }
    with pytest.raises(UsageError, match=r"which behavior is the target\?; name it \(--target\): view, is_apply|is_a"):
        read(file)


@pytest.mark.parametrize("valid", ["val", "valid", "validation"])
def test_recbole_validation_has_three_names(tmp_path, valid):
    log = LOG.assign(split=SPLITS)
    wanted = read(inter(tmp_path, log, split="split:token"))
    folder = tmp_path / "parts"
    folder.mkdir()
    for part, name in (("train", "train"), ("valid", valid), ("test", "test")):
        inter(folder, LOG[log["split"] == part], name=f"shop.{name}.inter")
    assert read(folder).content_hash() == wanted.content_hash()
    assert read(folder / f"shop.{valid}.inter").content_hash() == wanted.content_hash()
    named = inter(tmp_path, log.replace({"split": {"valid": valid}}), split="split:token")
    assert read(named).content_hash() == wanted.content_hash()
    (folder / "shop.val.inter").write_text("x")
    (folder / "shop.valid.inter").write_text("x")
    with pytest.raises(DataError, match=r"holds both shop.val\w*.inter and shop.val\w*.inter; remove one"):
        read(folder)


def test_event_logs_of_every_kind(tmp_path):
    file = tmp_path / "shop.csv"
    coded = LOG.assign(behavior=LOG["behavior"].map({"view": "1", "cart": "2", "buy": "4"}))
    coded.to_csv(file, index=False, header=False, encoding="utf-16")
    options = {"columns": ["user", "item", "behavior", "time"], "rename": {"1": "view", "2": "cart", "4": "buy"}}
    assert_like(read(file, "events", time="time", encoding="utf-16", **options))
    names = ["view", "cart", "buy"]
    wide = LOG.drop(columns="behavior").assign(**{name: LOG["behavior"] == name for name in names})
    wide.to_csv(file, index=False)
    assert_like(read(file, "events", time="time", one_hot=names))
