import json
from pathlib import Path

import pytest

from mbgraph.data import catalog
from mbgraph.data.catalog import data_folders, default_folder, find_dataset, list_datasets, load_dataset
from mbgraph.data.formats.npz import write_npz
from mbgraph.data.synthetic import demo
from mbgraph.errors import DataError, UsageError


def test_folders_in_order(data_home, monkeypatch):
    cache = data_home.parent / "home" / ".cache" / "mbgraph"
    assert data_folders() == [data_home, cache]
    monkeypatch.delenv("MBGRAPH_DATA")
    assert data_folders() == [cache]


def test_demo_needs_no_folder(data_home):
    assert load_dataset("demo").content_hash() == demo().content_hash()


def test_names_before_paths(data_home, tiny, tmp_path, monkeypatch):
    cache = data_home.parent / "home" / ".cache" / "mbgraph"
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for folder in (here, cache, data_home):  # from the last place looked at to the first
        write_npz(tiny.replace(name=str(folder)), folder / "shop")
        assert load_dataset("shop").name == str(folder)
        assert find_dataset("shop") == folder / "shop"
    assert load_dataset("./shop").name == str(here)
    assert load_dataset(cache / "shop").name == str(cache)


@pytest.mark.parametrize("name", ["../data/shop", "home/../data/shop"])
def test_names_with_separators_are_paths(data_home, tiny, name, monkeypatch):
    write_npz(tiny, data_home / "shop")
    monkeypatch.chdir(data_home.parent)
    if name.startswith(".."):
        with pytest.raises(UsageError, match=r"unknown dataset '../data/shop'; there is no such folder"):
            find_dataset(name)
    else:
        assert find_dataset(name) == data_home / "shop"


def test_unknown_names(data_home, tiny):
    write_npz(tiny, data_home / "beibei")
    with pytest.raises(UsageError, match=r"unknown dataset 'beibie'; did you mean 'beibei'\? \(looked in ") as caught:
        load_dataset("beibie")
    assert str(data_home) in str(caught.value)
    with pytest.raises(UsageError, match=r"unknown dataset 'q'; known are demo, beibei \(looked in .+ and as a path"):
        load_dataset("q")


@pytest.mark.parametrize("name", ["", "..x/y", "a\0b", "x" * 5000, "~nobody/there", "\\", "/", "."])
def test_odd_names(data_home, name, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises((UsageError, DataError), match=r"unknown dataset|is no dataset|cannot use the path"):
        load_dataset(name)


def test_a_folder_without_meta(data_home, tmp_path):
    with pytest.raises(
        DataError, match=r"data is no dataset: it has no meta.json; import an event log with: mbgraph data"
    ):
        load_dataset(str(data_home))


def test_demo_has_no_folder(data_home):
    with pytest.raises(UsageError, match="'demo' is generated and has no folder"):
        find_dataset("demo")


def test_list_reads_meta_only(data_home, tiny, monkeypatch):
    write_npz(tiny, data_home / "shop")
    for file in (data_home / "shop").glob("*.npz"):
        file.write_bytes(b"broken")
    (data_home / "notes").mkdir()
    (data_home / "readme.txt").write_text("x")
    write_npz(tiny, data_home / ".shop.tmp")
    monkeypatch.setattr(catalog, "read_npz", None)
    assert list_datasets() == [
        {"name": "demo", "path": None, "synthetic": True},
        {
            "name": "shop",
            "path": str(data_home / "shop"),
            "users": 6,
            "items": 5,
            "behaviors": ["view", "cart", "buy"],
            "target": "buy",
            "splits": ["valid", "test"],
            "counts": {"view": 9, "cart": 4, "buy": 5, "valid": 2, "test": 4},
        },
    ]


def test_one_broken_folder_hides_no_other(data_home, tiny):
    (data_home / "broken").mkdir()
    (data_home / "broken" / "meta.json").write_text(json.dumps({"name": "broken"}))
    write_npz(tiny, data_home / "shop")
    listed = {entry["name"]: entry for entry in list_datasets()}
    assert set(listed) == {"demo", "broken", "shop"}
    assert "meta.json lacks the key 'users'" in listed["broken"]["error"]
    with pytest.raises(UsageError, match=r"did you mean 'shop'"):
        load_dataset("shp")


@pytest.mark.realdata
def test_real_datasets_are_listed(shared_data):
    assert {"demo", "beibei", "taobao15k"} <= {entry["name"] for entry in list_datasets()}


def test_a_user_without_a_home(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("MBGRAPH_DATA", raising=False)
    assert data_folders() == []
    assert [entry["name"] for entry in list_datasets()] == ["demo"]
    with pytest.raises(UsageError, match="there is no home folder to put datasets into; say where"):
        default_folder()
    with pytest.raises(UsageError, match=r"known are demo \(looked in no folder and as a path"):
        load_dataset("nothing-like-it")
