"""`mbgraph data import` on logs as people have them."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from mbgraph.cli.main import cli
from mbgraph.data.catalog import load_dataset
from mbgraph.data.formats.npz import read_npz

RAW = "".join(
    f"{user},{item},9,{kind},{1511544070 + 3600 * (user + item)}\n"
    for user in range(1, 6)
    for item in range(1, 7)
    for kind in ("pv", "buy")
    if (user * item) % 5 or kind == "pv"
)


def run(*arguments):
    return CliRunner().invoke(cli, ["data", "import", *map(str, arguments)])


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "UserBehavior.csv").write_text(RAW)
    return tmp_path / "UserBehavior.csv"


NAMES = ("--columns", "user, item, _, behavior, time", "--target", "buy")


def test_the_best_known_log_has_no_header(raw, tmp_path):
    result = run(raw, "--target", "buy", "-o", tmp_path / "shop")
    assert result.exit_code == 2
    assert "looks like data: 1,1,9,pv,1511551270; if it has no header, name the columns in order: " in result.stderr
    assert "--columns user,item,_,behavior,time" in result.stderr
    result = run(raw, *NAMES, "-o", tmp_path / "shop")
    assert result.exit_code == 0, result.output
    assert "split loo by time" in result.stdout
    assert read_npz(tmp_path / "shop").edges["pv"].time[0] == 1511551270


def test_filters_are_reported_and_recorded(raw, tmp_path):
    options = ("--min-user", 3, "--min-item", 2, "--core", "--window", "2017-11-24..2017-11-24", "--json")
    result = run(raw, *NAMES, *options, "-o", tmp_path / "shop")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["filters"] == read_npz(tmp_path / "shop").metadata["filters"]
    act = answer["filters"][0]
    assert {key: act[key] for key in ("min_user", "min_item", "of", "core", "window")} == {
        "min_user": 3,
        "min_item": 2,
        "of": "target",
        "core": True,
        "window": "2017-11-24..2017-11-24",
    }
    assert act["events_left_out"] > 0
    assert act["users_left_out"] + answer["users"] == 5
    again = run(raw, *NAMES, *options[:-1], "--force", "-o", tmp_path / "shop")
    assert "filter (events of 2017-11-24..2017-11-24; users with 3 and items with 2 target pairs, again" in again.stderr
    assert f"left out {act['events_left_out']} events, " in again.stderr
    assert f"pairs in {act['rounds']} rounds" in again.stderr


def test_one_hot_renames_and_ties(tmp_path):
    frame = pd.DataFrame({"user": [1, 1, 1, 2], "item": [1, 2, 3, 1], "1": [1, 1, 0, 0], "4": [1, 1, 1, 1], "day": 7})
    frame.to_csv(tmp_path / "log.csv", index=False)
    options = ("--one-hot", "1, 4", "--rename", "1=view", "--rename", "4 = buy", "--target", "buy", "--time", "day")
    result = run(tmp_path / "log.csv", *options, "-o", tmp_path / "shop")
    assert result.exit_code == 2  # "4 " is no behavior
    assert "unknown behavior to rename '4 '; did you mean" in result.stderr
    options = (*options[:4], "--rename", "4= buy", *options[6:])
    result = run(tmp_path / "log.csv", *options, "-o", tmp_path / "shop")
    assert result.exit_code == 0, result.output
    assert read_npz(tmp_path / "shop").counts == {"view": 2, "buy": 2, "valid": 1, "test": 1}
    assert (
        "1 users have target pairs of the same moment on both sides of the split: the later row counts as later "
        "(--ties random draws)" in result.stderr
    )
    drawn = run(
        tmp_path / "log.csv", *options, "--ties", "random", "--seed", 5, "--json", "--force", "-o", tmp_path / "shop"
    )
    assert {key: json.loads(drawn.stdout)[key] for key in ("ties", "users_with_ties", "seed")} == {
        "ties": "random",
        "users_with_ties": 1,
        "seed": 5,
    }


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_folder_and_several_files(tmp_path, suffix):
    frame = pd.DataFrame({"user": [1, 1, 1, 2], "item": [1, 2, 3, 1], "behavior": "buy", "time": [1, 2, 3, 4]})
    folder = tmp_path / "log"
    folder.mkdir()
    for number in range(2):
        part, path = frame.iloc[2 * number : 2 * number + 2], folder / f"part-{number}.{suffix}"
        if suffix == "csv":
            part.to_csv(path, index=False, encoding="utf-16")
        elif suffix == "jsonl":
            part.to_json(path, orient="records", lines=True)
        else:
            part.to_parquet(path)
    options = ("--target", "buy", "--time", "time", "--json")
    by_folder = run(folder, *options, "-o", tmp_path / "a")
    assert by_folder.exit_code == 0, by_folder.output
    assert json.loads(by_folder.stdout)["events"] == 4
    by_file = run(*sorted(folder.iterdir()), *options, "-o", tmp_path / "b")
    assert read_npz(tmp_path / "a").content_hash() == read_npz(tmp_path / "b").content_hash()
    assert by_file.exit_code == 0


def test_the_name_of_the_embedded_data_is_taken(raw, data_home, monkeypatch):
    monkeypatch.chdir(data_home.parent)
    for place in ("demo", data_home / "demo"):
        result = run(raw, *NAMES, "-o", place)
        assert result.exit_code == 2
        assert "'demo' is the name of the embedded data, which would hide " in result.stderr
    assert run(raw, *NAMES, "-o", "./my/demo").exit_code == 0  # found by its path
    assert load_dataset("my/demo").target == "buy"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rename", "buy"), "error: cannot read --rename 'buy'; write OLD=NEW, such as 4=buy"),
        (("--rename", "pv=a", "--rename", "pv=b"), "error: --rename names 'pv' twice; rename it once"),
        (("--rename", "pv=a/b"), "error: behavior: 'a/b' cannot be a file name; rename it: --rename 'a/b=a_b', or"),
        (("--window", "soon"), "error: cannot read the window 'soon'; write A..B"),
        (("--core",), "error: core needs numbers to reach; pass min_user or min_item (--min-user, --min-item)"),
        (("--encoding", "gbx"), "error: unknown encoding 'gbx'; utf-8, utf-16, gbk"),
        (("--min-user", "99"), "error: the filter (users with 99 target pairs) leaves nothing; ask for fewer pairs"),
    ],
)
def test_errors_are_one_line_and_write_nothing(raw, tmp_path, arguments, message):
    result = run(raw, *NAMES, *arguments, "-o", tmp_path / "shop")
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if not line.startswith("reading")]
    assert len(lines) == 1
    assert message in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["UserBehavior.csv"]
