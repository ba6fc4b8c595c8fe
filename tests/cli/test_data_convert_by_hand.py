"""`mbgraph data convert` with files named by hand, and with filters."""

import json
import shlex

import pytest
from click.testing import CliRunner

from mbgraph.cli.main import cli
from mbgraph.data.filters import Filter, filter_dataset
from mbgraph.data.formats.npz import read_npz, write_npz


def run(*arguments):
    return CliRunner().invoke(cli, ["data", "convert", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "DIR"
    folder.mkdir()
    texts = {"clicks": "0 1\n0 2\n1 1\n2 0\n", "bought": "0 1\n1 2\n1 0\n2 1\n", "late": "0 0\n", "last": "1 1\n"}
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def test_the_line_of_the_error_is_one_to_write(folder, tmp_path):
    refused = run(folder, "-o", tmp_path / "out")
    assert refused.exit_code == 2
    line = refused.stderr.strip().splitlines()[-1].split("say what its files are: ")[1]
    words = shlex.split(line.replace("OUT", str(tmp_path / "out")))
    assert words[:3] == ["mbgraph", "data", "convert"]
    assert CliRunner().invoke(cli, words[1:]).exit_code == 0
    files = ("--behavior", "click=clicks", "--behavior", "buy=bought", "--target", "buy")
    done = run(folder, *files, "--valid", "late", "--test", "last", "--base", 0, "-o", tmp_path / "shop")
    assert done.exit_code == 0, done.output
    assert read_npz(tmp_path / "shop").counts == {"click": 4, "buy": 4, "valid": 1, "test": 1}
    assert "ids of the files count from 0" in done.stderr
    assert "click: read as pairs" in done.stderr


def test_filters(tiny, tmp_path):
    write_npz(tiny, tmp_path / "tiny")
    options = ("--min-user", 2, "--min-item", 1, "--of", "all", "--core")
    done = run(tmp_path / "tiny", *options, "--json", "-o", tmp_path / "core")
    wanted = filter_dataset(tiny, Filter(2, 1, "all", core=True))
    assert read_npz(tmp_path / "core").content_hash() == wanted.content_hash()
    assert json.loads(done.stdout)["filters"] == wanted.metadata["filters"]
    told = run(tmp_path / "tiny", *options, "-o", tmp_path / "core", "--force")
    assert (
        "filter (users with 2 and items with 1 all pairs, again until nothing changes): left out 1 users" in told.stderr
    )
    assert "filters" not in json.loads(run(tmp_path / "core", tmp_path / "same", "--json").stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--behavior", "click", "-o", "x"), "cannot read --behavior 'click'; write NAME=FILE, such as click=click_"),
        (("--behavior", "a=clicks", "--behavior", "a=late", "-o", "x"), "--behavior names 'a' twice; name one file"),
        (
            ("--behavior", "a=clicks", "--format", "pairs", "-o", "x"),
            "format pairs names its own files; leave --format",
        ),
        (("--behavior", "buy=bougth", "-o", "x"), "has no file 'bougth'; did you mean 'bought'?"),
        (("--test", "late", "-o", "x"), "held-out files are named, but no behavior; name the others too (--behavior"),
        (("--format", "mbcgcn", "--base", "1", "-o", "x"), "format mbcgcn has no option 'base'; leave it out"),
        ((), "no folder to write is named; mbgraph data convert IN OUT, or -o OUT"),
        (("y", "-o", "x"), "two folders to write are named, y and x; name one"),
        (("-o", "demo"), "'demo' is the name of the embedded data"),
    ],
)
def test_errors_are_one_line_and_write_nothing(folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = run("DIR", *arguments)
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["DIR"]


def test_files_are_never_ignored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for option in (("--base", 0, "--format", "pairs"), ("--behavior", "buy=x")):
        result = run("demo", *option, "-o", "x")
        assert result.exit_code == 2
        assert "there is no demo; correct the path" in result.stderr


def test_pairs_that_count_from_0(folder, tmp_path):
    (folder / "count.txt").write_text('{"user": 3, "item": 3}')
    (folder / "click.txt").write_text((folder / "clicks").read_text())
    (folder / "buy.txt").write_text((folder / "bought").read_text())
    refused = run(folder, "-o", tmp_path / "shop")
    assert "user id 0 is below 1; user ids of this format start at 1, correct it, or convert with --base 0" in (
        refused.stderr
    )
    assert run(folder, "--base", 0, "-o", tmp_path / "shop").exit_code == 0
    assert read_npz(tmp_path / "shop").counts == {"click": 4, "buy": 4}
