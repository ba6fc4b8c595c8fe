"""Files that claim more than they hold are refused before memory is taken, and only files are read."""

import gzip
import json
import os
import time
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from mbgraph import limits
from mbgraph.data import formats
from mbgraph.data.catalog import find_dataset, load_dataset
from mbgraph.data.events import import_events
from mbgraph.data.formats.npz import read_meta, read_npz, write_npz
from mbgraph.errors import DataError, UsageError
from mbgraph.evaluation.per_user import read_per_user
from mbgraph.export import ExportedModel
from mbgraph.files import open_file, read_json, reading, user_path
from mbgraph.schema import read_toml

RAISE = r"; if the file is to be trusted, raise it: mbgraph --limit {} COMMAND \.\.$"


@pytest.fixture
def folder(tiny, tmp_path):
    write_npz(tiny, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("users", 2_000_000_000, r"meta.json: 2,000,000,000 users are more than the limit of 10,000,000 \(users\)"),
        ("items", 2_000_000_000, r"meta.json: 2,000,000,000 items are more than the limit of 10,000,000 \(items\)"),
        (
            "behaviors",
            [f"b{n}" for n in range(101)],
            r"101 behaviors are more than the limit of 100 \(behaviors\)",
        ),
    ],
)
def test_counts_in_meta(folder, key, value, message):
    file = folder / "meta.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    wanted = f"{key}={len(value) if isinstance(value, list) else value}"
    with pytest.raises(DataError, match=message + RAISE.format(wanted)):
        read_npz(folder)


def test_counts_in_a_foreign_folder(tmp_path):
    (tmp_path / "count.txt").write_text('{"user": 2000000000, "item": 2}')
    (tmp_path / "buy.txt").write_text("1 1\n")
    with pytest.raises(DataError, match="2,000,000,000 users are more than the limit"):
        formats.read(tmp_path, "pairs")
    with limits.raised(users=2**31 - 1):
        assert formats.read(tmp_path, "pairs").num_users == 2_000_000_000


def test_an_npz_bomb(folder):
    """Zeros that unpack to a thousand times their size, with counts that agree."""
    file = folder / "meta.json"
    meta = json.loads(file.read_text())
    meta.update(users=2_000, items=2_000, counts={**meta["counts"], "view": 1_000_000})
    file.write_text(json.dumps(meta))
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000,), }".ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(folder / "view.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("user", "item"):
            with archive.open(f"{name}.npy", "w") as member:
                member.write(header)
                member.write(bytes(8_000_000))
    told = r"view.npz: 15 MiB unpacked from 0\.0 are more than the limit of 8 \(unpacked_mib\)" + RAISE.format(
        "unpacked_mib=16"
    )
    with limits.raised(unpacked_mib=8), pytest.raises(DataError, match=told):
        read_npz(folder)
    with pytest.raises(DataError, match="duplicate pairs"):
        read_npz(folder)


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_gzip_bomb(tmp_path, suffix):
    file = tmp_path / f"log.{suffix}.gz"
    lines = b"user,item,behavior\n" if suffix == "csv" else b""
    row = b"1,1,buy\n" if suffix == "csv" else b'{"user":1,"item":1,"behavior":"buy"}\n'
    file.write_bytes(gzip.compress(lines + row * (2_000_000 // len(row))))
    told = RAISE.format(r"unpacked_mib=\d+")
    with limits.raised(unpacked_mib=1, unpacked_ratio=1), pytest.raises(DataError, match="log.* MiB unpacked.*" + told):
        import_events(file, target="buy")
    assert len(import_events(file, target="buy", split="none").edges["buy"]) == 1


def test_a_parquet_of_runs(tmp_path):
    """Few bytes stand for many rows, and one text for a million of them."""
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), ["x" * 100_000])
    table = pa.table({"user": long, "item": np.zeros(100_000, np.int64), "behavior": ["buy"] * 100_000})
    parquet.write_table(table, tmp_path / "log.parquet", store_schema=False)
    with pytest.raises(DataError, match="MiB unpacked"):
        import_events(tmp_path / "log.parquet", target="buy")
    with limits.raised(unpacked_mib=1, unpacked_ratio=1), pytest.raises(DataError, match="MiB unpacked"):
        import_events(tmp_path / "log.parquet", target="buy", behavior="item", user="behavior", item="behavior")


def test_a_column_of_many_labels_is_refused_where_it_is_met(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text("user,item,behavior\n" + "".join(f"{n},{n},{n % 20_000}\n" for n in range(100_000)))
    started = time.perf_counter()
    with pytest.raises(
        DataError, match=r"column 'behavior' holds 20,000 labels and more \(0, 1, 2, ..\), the limit is"
    ):
        import_events(file, target="1")
    assert time.perf_counter() - started < 5
    ds = import_events(file, target="1", behaviors=["0", "1"], split="none")
    assert ds.behaviors == ("0", "1")


def test_values_of_json_and_columns(tmp_path):
    (tmp_path / "meta.json").write_text("[" + "1," * 200 + "1]")
    with limits.raised(objects=100), pytest.raises(DataError, match=r"201 values are more than the limit of 100 \(obj"):
        read_json(tmp_path / "meta.json")
    (tmp_path / "log.csv").write_text(",".join(f"c{n}" for n in range(11)) + "\n")
    with limits.raised(columns=10), pytest.raises(DataError, match="11 columns are more than the limit of 10"):
        import_events(tmp_path / "log.csv", target="buy")
    (tmp_path / "meta.json").write_bytes(b" " * (1 << 20) + b"{}")
    with (
        limits.raised(whole_mib=1),
        pytest.raises(DataError, match=r"1 MiB are more than the limit of 1 \(whole_mib\)"),
    ):
        read_json(tmp_path / "meta.json")
    (tmp_path / "c.toml").write_bytes(b"#" * (1 << 20) + b"\na = 1")
    with pytest.raises(DataError, match="c.toml has more than 1,048,576 bytes"):
        read_toml(tmp_path / "c.toml")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize(
    "read",
    [
        open_file,
        read_json,
        read_toml,
        load_dataset,
        formats.detect,
        read_per_user,
        ExportedModel.load,
        lambda path: import_events(path, target="buy"),
        lambda path: formats.read(path, "missl"),
        lambda path: formats.read(path, "recbole"),
        lambda path: formats.read_part(path, "pairs"),
        lambda path: formats.read_part(path, "csr-pickle"),
        lambda path: formats.read_part(path, "dicts"),
        lambda path: formats.read_part(path.rename(path.with_suffix(".zip")), "ehcf"),
    ],
)
def test_a_pipe_is_refused_without_waiting(tmp_path, read):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"pipe(\.zip)?: it is a pipe, not a file|holds no .inter file"):
        read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipes_among_the_files_of_a_folder(folder):
    (folder / "view.npz").unlink()
    os.mkfifo(folder / "view.npz")
    with pytest.raises(DataError, match="view.npz"):
        read_npz(folder)
    (folder / "meta.json").unlink()
    os.mkfifo(folder / "meta.json")
    with pytest.raises(DataError, match="no dataset|meta.json"):
        load_dataset(folder)


def test_what_nobody_expected_is_one_line_with_its_cause():
    with (
        pytest.raises(DataError, match=r"^cannot read a/b \(no 'x'\); restore the file$") as caught,
        reading("a/b"),
    ):
        raise KeyError("x")
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(DataError, match="a/b needs more memory than there is"), reading("a/b"):
        raise MemoryError
    with pytest.raises(UsageError, match="mine"), reading("a/b"):
        raise UsageError("mine")
    with pytest.raises(KeyboardInterrupt), reading("a/b"):
        raise KeyboardInterrupt


def test_readers_go_through_it(folder, monkeypatch):
    def broken(*_):
        raise AttributeError("no such thing")

    monkeypatch.setattr("mbgraph.data.formats.npz.read_arrays", broken)
    with pytest.raises(DataError, match=r"cannot read .*tiny \(AttributeError: no such thing\)"):
        load_dataset(folder)
    monkeypatch.setattr("mbgraph.data.formats.text.blocks", broken)
    with pytest.raises(DataError, match=r"cannot read .*x.txt \(TypeError: .*unexpected"):
        formats.read_part("x.txt", "pairs")


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "~nobody-at-all/x", "a/" * 3000])
def test_paths_that_none_can_be(path):
    for use in (user_path, find_dataset, formats.detect):
        with pytest.raises(UsageError, match="cannot use the path") as caught:
            use(path)
        assert len(str(caught.value)) < 300


def test_a_loop_of_links(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for use in (load_dataset, formats.detect, read_meta):
        with pytest.raises((UsageError, DataError), match=r"(?i)symbolic links"):
            use(tmp_path / "a")


def test_limits_travel(monkeypatch):
    assert limits.environment() == {}
    with limits.raised(users=7, items=8):
        assert limits.environment() == {"MBGRAPH_LIMITS": "users=7 items=8"}
    monkeypatch.setenv("MBGRAPH_LIMITS", "users=7 items=8")
    assert (limits.current().users, limits.current().items, limits.current().behaviors) == (7, 8, 100)
    with pytest.raises(UsageError, match="unknown option of the limits 'user'; did you mean 'users'"):
        limits.parse(["user=3"])
