"""Collecting runs and rendering tables; and that the pages say what the CSV files say."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from mbgraph import manifest
from mbgraph.bench.report import collect, read_rows, render_page, render_table, write_rows
from mbgraph.cli.main import cli
from mbgraph.config import FitConfig
from mbgraph.errors import DataError, RunError, UnknownNameError
from mbgraph.run import fit

REPOSITORY = Path(__file__).resolve().parents[2]


def test_rows_hold_the_figures_of_the_run(small_folder, tmp_path):
    outcome = fit(FitConfig(dataset=str(small_folder), model="conversion", seed=4), tmp_path / "run")
    (row,) = collect([tmp_path / "run"])
    assert (row["dataset"], row["model"], row["seed"], row["validation"]) == ("small", "conversion", 4, "given")
    assert row["test HR@10"] == round(outcome["test"]["HR@10"], 4)
    assert row["test visited share"] + row["test unvisited share"] == pytest.approx(1, abs=1e-3)
    result = CliRunner().invoke(cli, ["bench", "collect", str(tmp_path / "run"), "-o", str(tmp_path / "x.csv")])
    assert result.exit_code == 0, result.output
    assert read_rows(tmp_path / "x.csv")[0]["test HR@10"] == str(row["test HR@10"])


def test_rows_hold_the_cut_offs_that_were_used(small_folder, tmp_path):
    fit(FitConfig(dataset=str(small_folder), model="popularity", evaluation={"k": [3, 7]}), tmp_path / "one")
    fit(FitConfig(dataset=str(small_folder), model="popularity"), tmp_path / "two")
    first, second = collect([tmp_path / "one", tmp_path / "two"])
    assert [key for key in first if key.startswith("test HR")] == ["test HR@3", "test HR@7"]
    assert [key for key in second if key.startswith("test HR")] == ["test HR@10", "test HR@20"]
    shown = CliRunner().invoke(cli, ["bench", "collect", str(tmp_path / "one"), str(tmp_path / "two")]).stdout
    assert [word for word in shown.split() if word.startswith("HR@")] == ["HR@3", "HR@7", "HR@10", "HR@20"]


def test_an_extended_run_names_both_commands(small_folder, tmp_path):
    import json

    fit(FitConfig(dataset=str(small_folder), model="popularity"), tmp_path / "run")
    environment = json.loads((tmp_path / "run" / "env.json").read_text())
    more = {"command": ["mbgraph", "fit", "x", "--quiet"], "extended": [["mbgraph", "fit", "--resume", "x"]]}
    (tmp_path / "run" / "env.json").write_text(json.dumps({**environment, **more}))
    manifest.note(tmp_path / "run", ["env.json"])
    assert collect([tmp_path / "run"])[0]["command"] == "mbgraph fit x; mbgraph fit --resume x"


def test_option_tables_come_from_the_fields(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- options: regularizer rex -->\nold\n<!-- /options -->\nafter\n")
    assert render_page(page, tmp_path) == (
        "before\n<!-- options: regularizer rex -->\n| Option | Value | Default | Meaning |\n|---|---|---|---|\n"
        "| `unbiased` | true or false | `true` | Divide by K - 1 (published RMBRec code) instead of K (Eq. 7). |\n"
        "| `adaptive` | true or false | `false` | Count each behavior by how much it says about purchases "
        "(`mbgraph.nn.alignment_weights`), the target as 1. |\n"
        "<!-- /options -->\nafter\n"
    )
    page.write_text("<!-- options: rexx -->\n<!-- /options -->\n")
    with pytest.raises(UnknownNameError, match="unknown section 'rexx'"):
        render_page(page, tmp_path)


def test_unfinished_runs_are_named(small_folder, tmp_path):
    with pytest.raises(RunError, match=r"no run directory at .*half; make one with"):
        collect([tmp_path / "half"])
    fit(FitConfig(dataset=str(small_folder), model="popularity"), tmp_path / "half")
    (tmp_path / "half" / "test.json").unlink()
    with pytest.raises(RunError, match=r"half is no finished run: test.json is missing; continue it"):
        collect([tmp_path / "half"])


@pytest.mark.parametrize("name", ["test.json", "env.json", "dataset.json"])
def test_figures_that_were_changed_are_not_collected(small_folder, tmp_path, name):
    fit(FitConfig(dataset=str(small_folder), model="popularity"), tmp_path / "run")
    (tmp_path / "run" / name).write_text("{}")
    with pytest.raises(RunError, match=f"{name} is not the file that was written there"):
        collect([tmp_path / "run"])


def test_tables_are_rendered_in_place(tmp_path):
    write_rows(tmp_path / "x.csv", [{"model": "a", "HR": 0.5}, {"model": "b", "HR": 0.25, "note": "late"}])
    assert render_table(tmp_path / "x.csv", ["model", "HR=hit rate"]) == (
        "| model | hit rate |\n|---|---|\n| a | 0.5000 |\n| b | 0.2500 |\n"
    )
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: x.csv | model | note -->\nold\n<!-- /table -->\nafter\n")
    assert CliRunner().invoke(cli, ["bench", "render", str(page), "--root", str(tmp_path)]).exit_code == 0
    assert page.read_text() == (
        "before\n<!-- table: x.csv | model | note -->\n| model | note |\n|---|---|\n| a | - |\n| b | late |\n"
        "<!-- /table -->\nafter\n"
    )
    with pytest.raises(DataError, match="has no column 'hr'; choose from: model, HR, note"):
        render_table(tmp_path / "x.csv", ["hr"])
    with pytest.raises(DataError, match="cannot read"):
        render_table(tmp_path / "none.csv", ["hr"])


def test_the_tables_of_a_study_stand_in_a_page(tmp_path):
    (tmp_path / "x.md").write_text("# X\n\nWhy?\n\n> a note\n\n## A\n\n| a |\n|---|\n| ## 1 |\n\n## Verdicts\n\n- b\n")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- study: x.md -->\nold\n<!-- /study -->\nafter\n")
    assert render_page(page, tmp_path) == (
        "before\n<!-- study: x.md -->\n\n### A\n\n| a |\n|---|\n| ## 1 |\n\n### Verdicts\n\n- b\n"
        "<!-- /study -->\nafter\n"
    )
    (tmp_path / "x.md").write_text("# X\n")
    with pytest.raises(DataError, match=r"x\.md holds no table of a study; write it with: mbgraph bench STUDY --out"):
        render_page(page, tmp_path)
    (tmp_path / "x.md").unlink()
    with pytest.raises(DataError, match=r"there is no .*x\.md; write it with"):
        render_page(page, tmp_path)


@pytest.mark.parametrize(
    "page", [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_pages_say_what_the_csv_files_say(page):
    assert render_page(page, REPOSITORY) == page.read_text(encoding="utf-8"), "run: mbgraph bench render " + page.name
