"""`mbgraph recommend` on a real run: every output format, every way to name users, one-line errors."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from mbgraph.cli.main import cli
from mbgraph.config import FitConfig
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.npz import write_npz
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.recommend import recommend
from mbgraph.run import Run, fit

USERS, ITEMS = 12, 10


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run on a dataset whose ids need care: markup, commas, umlauts; the last user has no edges."""
    folder = tmp_path_factory.mktemp("recommend")
    rng = np.random.default_rng(0)
    edges = {}
    for behavior, count in (("view", 50), ("buy", 33)):
        users, items = np.divmod(rng.choice((USERS - 1) * ITEMS, count, replace=False), ITEMS)
        edges[behavior] = Pairs(users.astype(np.int64), items.astype(np.int64))
    ds = MultiBehaviorDataset(
        "tiny",
        Vocabulary(["[bold]b", "a,b", *(f"ü{n}" for n in range(2, USERS))], kind="user"),
        Vocabulary([f"i{n}" for n in range(ITEMS)], kind="item"),
        edges,
        target="buy",
    )
    write_npz(ds, folder / "tiny")
    config = FitConfig(
        dataset=str(folder / "tiny"),
        model="lightgcn",
        validation="none",
        training={"epochs": 1},
        options={"embedding_dim": 4},
    )
    fit(config, folder / "run")
    return folder / "run"


@pytest.fixture
def expected(run):
    loaded = Run.load(run)
    ds = loaded.dataset()
    return lambda *args, **options: recommend(loaded.model(ds), ds, *args, **options)


def call(*args, code=0, **options):
    result = CliRunner().invoke(cli, ["recommend", *map(str, args)], **options)
    assert result.exit_code == code, result.output
    return result


def lists(frame):
    groups = frame.groupby("user", sort=False)
    return [{"user": u, "items": g["item"].tolist(), "scores": g["score"].tolist()} for u, g in groups]


def test_json(run, expected):
    result = call(run, "--user", "a,b", "--user", "ü7", "-k", 3, "--json")
    assert json.loads(result.stdout) == lists(expected(["a,b", "ü7"], k=3))
    assert "data: tiny, run: " in result.stderr


def test_several_ids_behind_one_option(run, expected):
    result = call(run, "--user", "ü3", "a,b", "ü5", "-k", 2, "--json")
    assert [one["user"] for one in json.loads(result.stdout)] == ["ü3", "a,b", "ü5"]


def test_table(run):
    result = call(run, "--user", "[bold]b", "-k", 2)
    assert "tiny: top 2, exclude target" in result.stdout
    assert "[bold]b" in result.stdout  # an id is not markup


def test_csv_to_screen_and_file(run, expected, tmp_path):
    screen = call(run, "--all", "-k", 4, "--format", "csv").stdout
    call(run, "--all", "-k", 4, "-o", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == screen
    frame = pd.read_csv(tmp_path / "out.csv")
    wanted = expected(k=4)
    assert frame[["user", "rank", "item"]].values.tolist() == wanted[["user", "rank", "item"]].values.tolist()
    np.testing.assert_array_equal(frame["score"].to_numpy(np.float32), wanted["score"].to_numpy(np.float32))


def test_parquet(run, expected, tmp_path):
    result = call(run, "--all", "-k", 4, "--exclude", "all", "-o", tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "out.parquet"), expected(k=4, exclude="all"), check_dtype=False
    )
    assert f"recommendations for {USERS} users in" in result.stderr


def test_json_file_and_json_flag(run, expected, tmp_path):
    result = call(run, "--all", "-k", 2, "--exclude", "none", "-o", tmp_path / "out.json", "--json")
    wanted = lists(expected(k=2, exclude="none"))
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(result.stdout) == wanted


@pytest.mark.parametrize("text", ["ü4\nü2\n", "\ufeffü4\r\n\r\nü2"])
def test_users_file(run, tmp_path, text):
    (tmp_path / "ids.txt").write_bytes(text.encode("utf-8"))
    result = call(run, "--users-file", tmp_path / "ids.txt", "-k", 1, "--json")
    assert [one["user"] for one in json.loads(result.stdout)] == ["ü4", "ü2"]


def test_users_from_standard_input(run):
    result = call(run, "--users-file", "-", "-k", 1, "--json", input="ü4\n")
    assert [one["user"] for one in json.loads(result.stdout)] == ["ü4"]


def test_fallback(run):
    stranger, isolated = f"new{USERS}", f"ü{USERS - 1}"
    result = call(run, "--user", stranger, "ü2", isolated, "-k", 3, "--fallback", "popularity", "--json")
    answers = json.loads(result.stdout)
    assert [(one["user"], one["fallback"]) for one in answers] == [
        (stranger, True),
        ("ü2", False),
        (isolated, True),
    ]
    assert answers[0]["items"] == answers[2]["items"]
    assert "popular" in call(run, "--user", stranger, "-k", 1, "--fallback", "popularity").stdout


def test_users_without_candidates_are_counted(run, monkeypatch):
    frame = pd.DataFrame({"user": ["ü2"], "rank": [1], "item": ["i1"], "score": [1.0]})

    def bought_everything(*args, progress, explain):
        progress(USERS)
        return frame

    monkeypatch.setitem(sys.modules, "mbgraph.recommend", SimpleNamespace(recommend=bought_everything))
    result = call(run, "--all", "-k", 1, "--json")
    assert f"users without a candidate left, and so without a list: {USERS - 1}" in result.stderr
    assert json.loads(result.stdout) == lists(frame)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "error: no users to recommend to; name them with --user ID or --users-file FILE, or say --all"),
        (["--all", "--user", "ü2"], "error: --all and named users exclude each other; leave one of them out"),
        (
            ["--user", "zoe"],
            "error: unknown user 'zoe', dataset 'tiny' has 12 users; leave it out, or ask for the fallback",
        ),
        (["--all", "-k", "0"], "error: Invalid value for '-k' / '--k': 0 is not in the range 1<=x<=10000000"),
        (["--all", "-k", "11"], "error: k is 11; choose it from 1 to 10"),
        (["--all", "--exclude", "al"], "error: unknown exclude 'al'; did you mean 'all'?"),
        (["--all", "--fallback", "random"], "error: unknown fallback 'random'; choose from: popularity"),
        (
            ["--all", "--format", "xml"],
            "error: unknown format 'xml'; choose --format from table, csv, json, parquet",
        ),
        (["--all", "-o", "out.txt"], "error: 'out.txt' names no format; choose --format"),
        (["--all", "--format", "table", "-o", "out.txt"], "error: a table goes to the screen only"),
        (["--all", "--format", "parquet"], "error: Parquet goes to a file only; name it with -o FILE"),
        (
            ["--users-file", "missing.txt"],
            "error: cannot read missing.txt: No such file or directory; check the path",
        ),
    ],
)
def test_errors(run, options, message):
    result = call(run, *options, code=2)
    assert message in result.stderr
    assert result.stderr.count("error: ") == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert result.stdout == ""


def test_broken_users_files(run, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"\xfc2\n")
    assert "holds no user ids; give one" in call(run, "--users-file", tmp_path / "empty.txt", code=2).stderr
    assert "latin.txt is not UTF-8 text" in call(run, "--users-file", tmp_path / "latin.txt", code=2).stderr


def test_no_run(tmp_path):
    assert "error: no run directory at" in call(tmp_path / "none", "--all", code=1).stderr


def test_a_failed_write_leaves_the_old_file(run, tmp_path):
    (tmp_path / "out.csv").mkdir()
    result = call(run, "--all", "-k", 1, "-o", tmp_path / "out.csv", code=1)
    assert "error: cannot write" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_nobody_has_a_candidate(tmp_path):
    """Every user has bought everything: no list in any format, and a word about it."""
    user, item = np.divmod(np.arange(6), 2)
    ids = Vocabulary(["a", "b", "c"], kind="user"), Vocabulary(["x", "y"], kind="item")
    write_npz(MultiBehaviorDataset("full", *ids, {"buy": Pairs(user, item)}, "buy"), tmp_path / "full")
    arguments = ["fit", str(tmp_path / "full"), "--model", "popularity", "--out", str(tmp_path / "run"), "--quiet"]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    for more, told in ((["--json"], "[]\n"), (["--format", "csv"], "user,rank,item,score\n"), ([], None)):
        result = CliRunner().invoke(cli, ["recommend", str(tmp_path / "run"), "--all", "-k", "2", *more])
        assert result.exit_code == 0, result.output
        assert "users without a candidate left, and so without a list: 3" in result.stderr
        assert told is None or result.stdout == told
