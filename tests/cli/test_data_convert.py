import json

import pytest
from click.testing import CliRunner

from mbgraph.cli.main import cli
from mbgraph.data.formats import WRITERS, read
from mbgraph.data.formats.npz import read_npz, write_npz
from mbgraph.data.synthetic import demo


def run(*arguments):
    return CliRunner().invoke(cli, ["data", "convert", *map(str, arguments)])


@pytest.fixture
def f1(tmp_path):
    """A folder of pair files of another make, with a duplicate and a file that is left out."""
    folder = tmp_path / "Shop"
    folder.mkdir()
    (folder / "count.txt").write_text('{"user": 3, "item": 4}')
    (folder / "view.txt").write_text("1 1\n1 2\n1 1\n")
    (folder / "buy.txt").write_text("1 2\n3 4\n")
    (folder / "test.txt").write_text("1 3\n")
    (folder / "all.txt").write_text("")
    return folder


def test_convert(f1, tmp_path):
    result = run(f1, "--to", "npz", tmp_path / "shop")
    assert result.exit_code == 0, result.output
    ds = read_npz(tmp_path / "shop")
    assert ds.counts == {"view": 2, "buy": 2, "test": 1}
    assert ds.name == "Shop"
    assert ds.metadata["format"]["duplicates"] == {"view": 1}
    assert "buy (target, train)" in result.stdout
    assert "1 duplicate view pairs left out" in result.stderr
    assert "left out all.txt: derived from the pair files" in result.stderr
    assert "(npz)" in result.stderr


def test_a_chain_keeps_everything(tmp_path, tiny):
    write_npz(tiny, tmp_path / "a")
    for source, to, out in (("a", "pairs", "b"), ("b", "recbole", "c"), ("c", "npz", "d")):
        result = run(tmp_path / source, tmp_path / out, "--to", to, "--json")
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        assert answer["content_hash"] == tiny.content_hash()
        assert (answer["format"], answer["dataset"], answer["source"]) == (to, "tiny", {})
    for name in ("meta.json", "users.txt", "items.txt"):
        assert (tmp_path / "d" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


def test_names_targets_and_the_demo(f1, tmp_path, data_home, tiny):
    assert run("demo", tmp_path / "demo", "--to", "pairs").exit_code == 0
    assert read(tmp_path / "demo").content_hash() == demo().content_hash()
    write_npz(tiny, data_home / "tiny")
    assert run("tiny", tmp_path / "t", "--to", "recbole", "--name", "mine").exit_code == 0
    assert read(tmp_path / "t").name == "mine"
    answer = run(f1, tmp_path / "s", "--to", "npz", "--format", "pairs", "--target", "view", "--json")
    assert json.loads(answer.stdout)["target"] == "view"
    assert json.loads(answer.stdout)["source"]["files"] == ["buy.txt", "count.txt", "test.txt", "view.txt"]


@pytest.mark.parametrize("to", WRITERS)
def test_force(f1, tmp_path, to):
    assert run(f1, tmp_path / "out", "--to", to).exit_code == 0
    again = run(f1, tmp_path / "out", "--to", to)
    assert again.exit_code == 2
    assert "already exists and is not empty; choose another folder or overwrite it (--force)" in again.stderr
    assert run(f1, tmp_path / "out", "--to", to, "--force").exit_code == 0
    other = WRITERS[(WRITERS.index(to) + 1) % len(WRITERS)]
    assert run(f1, tmp_path / "out", "--to", other, "--force").exit_code == 2
    assert read(tmp_path / "out").counts == {"view": 2, "buy": 2, "test": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none", "x", "--to", "npz"), "unknown dataset 'none'"),
        (("Shop", "x", "--to", "csv"), "'csv' is not one of 'npz', 'pairs', 'recbole'"),
        (("Shop",), "no folder to write is named; mbgraph data convert IN OUT, or -o OUT"),
        (("Shop", "x", "--to", "npz", "--format", "ehcf"), "Shop holds no behavior; give the folder"),
        (("Shop", "x", "--to", "npz", "--target", "by"), "unknown target behavior 'by'; did you mean 'buy'?"),
        (("log.csv", "x", "--to", "npz"), "log.csv is an event log, no dataset; import it with: mbgraph data import"),
        ((".", "x", "--to", "npz"), "is no dataset: it has no meta.json; import an event log"),
        (("Shop/view.txt", "x", "--to", "npz"), "is no dataset"),
        (("Shop", "Shop", "--to", "pairs", "--force"), "cannot be overwritten (it has no mbgraph.json)"),
    ],
)
def test_errors_are_one_line_and_write_nothing(f1, tmp_path, monkeypatch, data_home, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text("user,item,behavior\n1,2,buy\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 or "Usage" in result.stderr or "Error" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_dataset_itself_is_no_place(tmp_path, tiny):
    write_npz(tiny, tmp_path / "shop")
    result = run(tmp_path / "shop", tmp_path / "shop", "--to", "npz", "--force")
    assert result.exit_code == 2
    assert "is the dataset itself; choose another folder" in result.stderr
