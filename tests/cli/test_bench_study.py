"""`mbgraph bench STUDY`: from the name of a study or a file to tables, on a machine without any data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mbgraph.bench.sources import facts_of, source
from mbgraph.cli.bench.watching import duration
from mbgraph.cli.main import cli

STUDY = """\
title = "Rules"
question = "Which rule?"
datasets = ["{data}"]
seeds = [1]
metrics = ["HR@10"]

[[rows]]
name = "conversion"
model = "conversion"

[[rows]]
name = "popularity"
model = "popularity"

[[claims]]
text = "Conversion is better"
place = "here"
metric = "HR@10"
pairs = [["conversion", "popularity"]]
"""


@pytest.fixture
def bench(tmp_path, data_home, monkeypatch):
    """Run ``mbgraph bench`` with a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MBGRAPH_STORE", str(tmp_path / "store"))
    source.cache_clear()
    facts_of.cache_clear()

    def called(*arguments, code=0):
        result = CliRunner().invoke(cli, ["bench", *arguments])
        assert result.exit_code == code, result.output
        return result

    return called


@pytest.fixture
def file(tmp_path, small_folder):
    path = tmp_path / "rules.toml"
    path.write_text(STUDY.format(data=small_folder.as_posix()), encoding="utf-8")
    return str(path)


def test_table1_works_on_a_fresh_machine_and_says_what_it_stands_on(bench):
    result = bench("table1")
    assert "beibei is not on disk; get it with: mbgraph data download beibei" in result.stderr
    assert "demo-low, demo-high stand in, which are synthetic" in result.stderr
    assert "SYNTHETIC data" in " ".join(result.stdout.split())
    assert "demo-high (synthetic)" in result.stdout
    answer = json.loads(bench("table1", "--json").stdout)
    assert answer["synthetic"] == ["demo-low", "demo-high"]
    assert "SYNTHETIC" in answer["captions"]["demo-low"]


def test_a_file_of_ones_own(bench, file, tmp_path):
    first = bench(file, "--out", "results")
    assert "+ " in first.stderr
    assert "holds" in first.stdout
    written = {path.name for path in (tmp_path / "results").iterdir()}
    assert {name for name in written if not name.endswith((".svg", ".png"))} == {
        "rules.csv",
        "rules.md",
        "rules.tex",
        "rules_runs.csv",
    }
    again = bench(file, "--json")
    assert "+ " not in again.stderr  # everything was found
    answer = json.loads(again.stdout)
    assert answer["runs"] == {"done": 2}
    assert [each["verdict"] for each in answer["verdicts"]] == ["holds"]


def test_list_and_dry_run_run_nothing(bench, file, tmp_path):
    assert "missing" in bench(file, "--list").stdout
    shown = bench(file, "--dry-run").stdout
    assert "2 of 2 runs are left" in shown
    assert "no estimate: nothing like them was ever measured" in shown
    assert not (tmp_path / "store").exists()
    bench(file, "--quick", "--datasets", json.loads(bench(file, "--json").stdout)["datasets"][0])
    assert "done" in bench(file, "--list").stdout
    left = bench(file, "--dry-run").stdout
    assert "0 of 2 runs are left" in left
    assert "in one process" not in left
    other = tmp_path / "other.toml"
    text = Path(file).read_text(encoding="utf-8").replace('model = "popularity"', 'model = "item-cosine"')
    text = text.replace('model = "conversion"', 'model = "conversion"\noptions = { smoothing = 20.0 }')
    other.write_text(text, encoding="utf-8")
    some = bench(str(other), "--dry-run").stdout
    assert "2 of 2 runs are left" in some
    assert "about 0 s in one process; nothing like 1 of them was ever measured in this store" in some


def test_a_budget_that_is_over_stops_cleanly(bench, file):
    result = bench(file, "--budget", "1s", "--json")
    assert json.loads(result.stdout)["runs"].keys() <= {"done", "missing"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tabel3"], 2, "no such command 'tabel3'; did you mean 'table3'?"),
        (["nothing.toml"], 2, "cannot read nothing.toml"),
        (["table1", "--datasets", "beibie"], 2, "unknown dataset 'beibie'"),
        (["table2", "--seeds", "a"], 2, "'a' are no seeds; write for example 2026,1,2"),
        (["table2", "--budget", "soon"], 2, "'soon' is no time span; write for example 30m"),
        (["table2", "--seeds", "²"], 2, "are no seeds; write for example 2026,1,2"),
        (["table2", "--seeds", "9" * 5000], 2, "are no seeds; write for example 2026,1,2"),
        (["table2", "--budget", "9" * 400], 2, "is no time span; write for example 30m"),
    ],
)
def test_mistakes_are_one_line(bench, arguments, code, message):
    result = bench(*arguments, code=code)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_bad_file_is_one_line_with_its_place(bench, file, tmp_path):
    (tmp_path / "bad.toml").write_text((tmp_path / "rules.toml").read_text().replace("popularity", "populariti"))
    result = bench("bad.toml", code=2)
    assert result.stderr.startswith("error: bad.toml:")
    assert result.stderr.count("\n") == 1


def test_a_store_of_another_version_is_one_line(bench, file, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "store.json").write_text('{"format": 9, "mbgraph": "3"}')
    assert "was written by mbgraph 3 in format 9" in bench(file, code=1).stderr


def test_time_spans_are_said_as_people_say_them():
    assert [duration(seconds) for seconds in (5, 600, 3600, 5000)] == ["5 s", "10 min", "1 h 00 min", "1 h 23 min"]


def test_a_wide_table_loses_neither_names_nor_digits(bench):
    shown = bench("table1", "--datasets", "demo").stdout
    assert "demo (synthetic)" in shown
    assert "0.3500" in shown
