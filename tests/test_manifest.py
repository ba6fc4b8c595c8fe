"""The hashes of a run directory: what they catch, and that a kill between two files is no damage."""

import json
import os

import pytest

from mbgraph import manifest
from mbgraph.errors import DataError, RunError


@pytest.fixture
def folder(tmp_path):
    with manifest.recorded(tmp_path, ["a", "b"]) as files:
        for file, content in zip(files, (b"first", b"second"), strict=True):
            file.write(content)
    return tmp_path


def test_what_was_written_is_what_is_found(folder):
    manifest.check(folder, ["a", "b"])
    assert json.loads((folder / "manifest.json").read_text()).keys() == {"a", "b"}


@pytest.mark.parametrize("content", [b"", b"firsT", b"first ", b"second"])
def test_changed_files(folder, content):
    (folder / "a").write_bytes(content)
    manifest.check(folder, ["b"])
    with pytest.raises(RunError, match=r"a is not the file that was written there: .*; restore it, or fit the model"):
        manifest.check(folder, ["b", "a"])
    manifest.note(folder, ["a"])
    manifest.check(folder, ["a"])


def test_missing_files_and_entries(folder):
    (folder / "a").unlink()
    with pytest.raises(DataError, match="cannot read .*a: No such file"):
        manifest.check(folder, ["a"])
    (folder / "c").write_bytes(b"")
    with pytest.raises(RunError, match=r"manifest.json of .* knows no c; continue it with: mbgraph fit --resume"):
        manifest.check(folder, ["c"])


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "{", "[" * 100_000])
def test_manifests_that_are_none(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(RunError, match="manifest.json"):
        manifest.check(folder, ["a"])


def test_without_one_nothing_is_believed(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"has no manifest.json, so nothing says .*; restore it, or fit the model again"):
        manifest.check(folder, ["a"])


@pytest.mark.parametrize("survives", range(4))
def test_a_kill_between_any_two_renames_is_no_damage(folder, monkeypatch, survives):
    """The process ends after 0, 1, 2 or 3 files took their places: hashes first, then the files in order."""
    real, renamed = os.replace, []

    def replace(source, target):
        if len(renamed) == survives:
            raise KeyboardInterrupt
        renamed.append(target.name)
        real(source, target)

    monkeypatch.setattr("mbgraph.files.os.replace", replace)
    try:
        with manifest.recorded(folder, ["a", "b"]) as files:
            files[0].write(b"third")
            files[1].write(b"fourth")
    except KeyboardInterrupt:
        pass
    assert renamed == ["manifest.json", "a", "b"][:survives]
    manifest.check(folder, ["a", "b"])


def test_the_file_before_the_last_is_forgotten(folder):
    for content in (b"third", b"fourth"):
        with manifest.recorded(folder, ["a"]) as files:
            files[0].write(content)
    (folder / "a").write_bytes(b"first")
    with pytest.raises(RunError, match="not the file that was written"):
        manifest.check(folder, ["a"])
