import errno
import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph import files
from mbgraph.errors import DataError, RunError, UsageError
from mbgraph.files import atomic_write, check_folder, inside, read_json, safe_name, write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_binary_text_and_missing_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    with atomic_write(tmp_path / "text", "w") as file:
        file.write("ü\n")
    assert (tmp_path / "text").read_text(encoding="utf-8") == "ü\n"


def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted():
        with atomic_write(path, "w") as file:
            file.write("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_readers_see_the_old_file_until_the_end(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_write(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    path.write_text("old")

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, step, full)
    with (
        pytest.raises(RunError, match=r"cannot write .*file: No space left on device; free some space"),
        atomic_write(path, "w") as file,
    ):
        file.write("new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this platform")
def test_a_write_that_finds_the_disk_full_is_reported(tmp_path):
    with (
        pytest.raises(RunError, match="No space left on device"),
        atomic_write(tmp_path / "file") as _,
        open("/dev/full", "w") as full,
    ):
        full.write("x" * 100_000)
    assert names(tmp_path) == []


def test_an_unwritable_folder_is_named(tmp_path, monkeypatch):
    def denied(*_args, **_options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(files.tempfile, "mkstemp", denied)  # chmod would not stop root
    with (
        pytest.raises(RunError, match=r"cannot write .*out\.json: Permission denied; .*choose another folder"),
        atomic_write(tmp_path / "out.json"),
    ):
        pass


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*file/x"), atomic_write(tmp_path / "file" / "x"):
        pass


def test_the_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON)
def test_json_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_text().endswith("\n")


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {"key": object()})
    assert json.loads(path.read_text()) == 1


def test_json_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none\.json: No such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"broken\.json is not valid JSON"):
        read_json(tmp_path / "broken.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary\.json is not valid JSON"):
        read_json(tmp_path / "binary.json")


@pytest.mark.parametrize("name", ["view.npz", "a/b.npz", "a/../view.npz", "..view"])
def test_names_inside_are_resolved(tmp_path, name):
    assert inside(tmp_path, name) == (tmp_path / name).resolve()


@pytest.mark.parametrize("name", ["../view", "a/../../view", "/etc/passwd", "..", ".", "", "a/.."])
def test_names_that_leave_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="would leave the folder"):
        inside(tmp_path, name)


def test_links_that_leave_are_refused(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="would leave the folder"):
        inside(tmp_path / "folder", "link/view.npz")
    (tmp_path / "folder" / "near").symlink_to(tmp_path / "folder" / "view.npz")
    assert inside(tmp_path / "folder", "near").name == "view.npz"


def test_a_neighbour_with_the_same_prefix_is_outside(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="would leave the folder"):
        inside(tmp_path / "data", "../database/view.npz")


def test_which_folders_may_be_written(tmp_path):
    check_folder(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_folder(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="file is a file; choose another folder"):
        check_folder(tmp_path / "file", overwrite=True)
    with pytest.raises(
        UsageError, match=r"already exists and is not empty; choose another folder or overwrite it \(--"
    ):
        check_folder(tmp_path)
    with pytest.raises(UsageError, match="already exists and is not empty; continue it"):
        check_folder(tmp_path, remedy="continue it")
    asked = []
    check_folder(tmp_path, overwrite=True, objection=asked.append)
    assert asked == [["empty", "file"]]
    check_folder(tmp_path / "empty", overwrite=True, objection=asked.append)
    assert len(asked) == 1


@given(st.text(st.characters(), max_size=300))
def test_a_safe_name_is_one_part_of_a_path_that_any_system_takes(text):
    name = safe_name(text)
    assert os.path.basename(name) == name
    assert not set(name) & set('/\\:*?"<>|\0\n')
    assert name[0] not in ".-"
    assert len(name.encode()) <= 82
    assert safe_name(name) == name


@pytest.mark.parametrize("text", ["", "..", "/", "\0", "\ud800", "../" * 99, " "])
def test_what_holds_no_name_gets_the_default(text):
    assert safe_name(text, "run") == "run"


def test_names_of_devices_are_kept_apart():
    assert [safe_name(text) for text in ("con", "NUL.txt", "console")] == ["_con", "_NUL.txt", "console"]
