"""The place of a dataset folder: one writer, nothing left behind, nothing lost."""

import pytest

from mbgraph.data.formats import write
from mbgraph.data.formats.folder import claimed_folder, new_folder
from mbgraph.data.formats.npz import read_npz
from mbgraph.errors import RunError


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_the_second_writer_is_told_who_the_first_is(tiny, tmp_path):
    with claimed_folder(tmp_path / "shop"):
        with pytest.raises(RunError, match=r"process \d+ on .+ is writing .*shop; wait until it ends, or"):
            write(tiny, tmp_path / "shop", "npz")
        write(tiny, tmp_path / "other", "npz")
    write(tiny, tmp_path / "shop", "npz")
    assert names(tmp_path) == ["other", "shop"]


def test_what_killed_writers_left_goes_and_what_they_moved_aside_comes_back(tiny, tmp_path):
    write(tiny, tmp_path / "old", "npz")
    (tmp_path / ".shop.abcd1234.tmp").mkdir()
    (tmp_path / ".shop.abcd1234.tmp" / "view.npz").write_bytes(b"half")
    (tmp_path / ".shop.abcd1234.old").mkdir()
    (tmp_path / "old").rename(tmp_path / ".shop.abcd1234.old" / "shop")
    for mine in (".shop.mine", ".shopping.abcd1234.tmp", "shop.abcd1234.tmp"):
        (tmp_path / mine).mkdir()
    with claimed_folder(tmp_path / "shop"):
        assert read_npz(tmp_path / "shop").content_hash() == tiny.content_hash()
    assert names(tmp_path) == [".shop.mine", ".shopping.abcd1234.tmp", "shop", "shop.abcd1234.tmp"]


def test_an_error_frees_the_place(tmp_path):
    with pytest.raises(KeyError), claimed_folder(tmp_path / "shop"), new_folder(tmp_path / "shop"):
        raise KeyError
    assert names(tmp_path) == []
    with claimed_folder(tmp_path / "shop"):
        pass
