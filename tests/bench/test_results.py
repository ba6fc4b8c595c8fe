"""Figures of cells, tables of them in four forms, paired tests and verdicts."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mbgraph.bench import Results, tables
from mbgraph.bench.facts import measured
from mbgraph.bench.grids import accuracy_grid, grids
from mbgraph.bench.jobs import Cell, Job, expand
from mbgraph.bench.results import CellResult, Measured, RunResult, gather
from mbgraph.bench.runner import execute, run
from mbgraph.bench.sources import Facts, Recipe
from mbgraph.bench.stars import paired_tests
from mbgraph.bench.store import Store
from mbgraph.bench.study import Study
from mbgraph.bench.verdicts import decide, verdicts
from mbgraph.config import FitConfig

VALUES = {"full": {1: 0.5, 2: 0.6}, "w/o view": {1: 0.3, 2: 0.35}, "w/o cart": {1: 0.55, 2: 0.55}}


@pytest.fixture
def results(study, store, fake) -> Results:
    """The study with made-up figures by row and seed."""
    jobs = expand(study)
    by_address = {
        store.address(job): VALUES.get(job.cell.row, {1: 0.9})[job.seed] for job in jobs if store.address(job)
    }

    def fit(config, directory, callbacks):
        fake.value = lambda config: by_address[directory.name]
        return fake(config, directory, callbacks)

    execute(jobs, store, fit=fit)
    return gather(study, study.datasets, jobs, store)


def test_cells_have_mean_spread_and_number(results):
    cells = {each.cell.row: each for each in results.cells}
    full = cells["full"].measured("HR@10")
    assert (full.mean, full.n) == (pytest.approx(0.55), 2)
    assert full.sd == pytest.approx(statistics.stdev([0.5, 0.6]))
    assert cells["conversion"].measured("HR@10") == Measured(0.9, None, 1)
    assert cells["full"].by_seed("NDCG@10") == {(1, None): 0.25, (2, None): 0.3}


def test_the_frame_has_a_row_per_run_group_and_metric(results):
    frame = results.to_frame()
    assert len(frame) == 7 * 3 * 2
    one = frame.query("row == 'full' and seed == 2 and group == 'all' and metric == 'HR@10'")
    assert one["value"].tolist() == [0.6]
    assert one["synthetic"].tolist() == [True]
    assert (frame["run"].str.len() == 64).all()


def test_best_and_second_leave_the_anchors_out(results):
    grid = accuracy_grid(results, results.datasets[0])
    column = grid.columns.index("HR@10")
    marks = {row[0].text: (row[column].best, row[column].second) for row in grid.rows}
    assert marks == {
        "full": (True, False),  # 0.55 as well
        "w/o view": (False, True),
        "w/o cart": (True, False),
        "conversion": (False, False),
    }
    assert grid.rule == 3
    assert grid.rows[0][1].text == "2/2"
    assert grid.rows[0][column].text == "0.5500 ± 0.0707"
    assert "SYNTHETIC" in grid.caption
    assert "mask train-target, realistic ties, the last epoch" in grid.caption  # nothing was trained


def test_costs_stand_beside_figures_where_the_study_asks_for_them(results):
    plain = accuracy_grid(results, results.datasets[0])
    shown = accuracy_grid(replace(results, study=results.study.replace(costs=True)), results.datasets[0])
    assert shown.columns == (*plain.columns, "epochs", "s per epoch", "peak MiB")
    own = {row[0].text: [box.text for box in row[-3:]] for row in shown.rows}
    outcome = results.cells[0].runs[0].outcome
    assert own["full"] == [
        str(outcome["epochs"]),
        f"{outcome['seconds_per_epoch']:.3g}",
        f"{outcome['peak_memory_mb']:,.0f}",
    ]
    assert own["conversion"][:2] == ["-", "-"]
    assert "Costs are medians over the runs" in shown.caption
    assert "Costs" not in plain.caption


def test_markdown_latex_and_csv_say_the_same(results, tmp_path):
    page = tables.markdown(results)
    assert "| **0.5500 ± 0.0707** |" in page.replace("| full | 2/2 ", "")
    assert "SYNTHETIC" in page
    source = tables.latex(results)
    assert r"\textbf{0.5500 $\pm$ 0.0707}" in source
    assert r"\underline{0.3250 $\pm$ 0.0354}" in source
    assert source.count(r"\midrule") == 2
    assert source.count("\\\\\n") == 1 + 4
    written = {path.name for path in tables.write_all(results, tmp_path / "out")}
    assert written == {"mine.csv", "mine.md", "mine.tex", "mine_runs.csv"}
    import pandas as pd

    cells = pd.read_csv(tmp_path / "out" / "mine.csv")
    assert cells.query("row == 'full' and metric == 'HR@10'")["mean"].tolist() == [0.55]


def test_latex_escapes_what_means_something_there():
    assert tables._tex("50 % of a_b & c ± {d}") == r"50 \% of a\_b \& c $\pm$ \{d\}"


def fake_results(study: Study, cells: dict[str, dict[tuple[int, int | None], float | None]], dataset: str) -> Results:
    """Return results of made-up figures on a dataset that need not be here; a name may hold a setting after a bar.

    A figure of None is a run that is missing.
    """
    made = []
    for name, samples in cells.items():
        row, _, setting = name.partition("|")
        model = "conversion" if row == "conversion" else "rmbrec"
        cell = Cell(dataset, row, setting, "anchor" if model == "conversion" else "model")
        runs = []
        for (seed, noise), value in samples.items():
            job = Job(cell, FitConfig(model=model, seed=seed), Recipe(dataset), noise)
            if value is None:
                runs.append(RunResult(job, "missing", None))
                continue
            groups = {"all": {"metrics": {"HR@10": value, "NDCG@10": value / 2}}}
            costs = {"epochs": 3, "seconds_per_epoch": 1.0, "peak_memory_mb": 500.0}
            outcome = {"details": {"test": {"groups": groups}}, "users_evaluated": 5, **costs}
            runs.append(RunResult(job, "done", "x", outcome=outcome))
        made.append(CellResult(cell, tuple(runs)))
    return Results(study, (dataset,), tuple(made), {}, Store(Path("nowhere")))


@pytest.fixture
def as_published(monkeypatch):
    """Every dataset is the one of its card, none is synthetic."""

    def facts(name):
        return Facts(name, "h", ("view", "buy"), ("view",), False, True)

    for module in ("results", "grids"):
        monkeypatch.setattr(f"mbgraph.bench.{module}.facts_of", facts)


def test_published_figures_stand_beside_their_own_data_only(as_published):
    study = Study.load("table3")
    samples = {"RMBRec": {(1, None): 0.15}, "w/o RRM": {(1, None): 0.12}}
    found = fake_results(study, samples, "taobao")
    row = found.summary().query("row == 'RMBRec' and metric == 'HR@10'").iloc[0]
    assert row["published"] == 0.1462
    assert row["difference"] == pytest.approx(0.15 / 0.1462 - 1)
    assert fake_results(study, samples, "taobao15k").published("taobao15k", "RMBRec", "HR@10") is None
    grid = accuracy_grid(found, "taobao")
    assert grid.columns[2:5] == ("HR@10", "paper", "diff.")
    assert [box.text for box in grid.rows[0][3:5]] == ["0.1462", "+2.6%"]
    assert "Published: Table 3" in grid.caption
    assert "paper" not in accuracy_grid(fake_results(study, samples, "taobao15k"), "taobao15k").columns


def test_data_that_only_share_a_name_get_no_published_figures(monkeypatch):
    facts = Facts("taobao", "h", ("view", "buy"), ("view",), False, False)
    monkeypatch.setattr("mbgraph.bench.results.facts_of", lambda name: facts)
    found = fake_results(Study.load("table3"), {"RMBRec": {(1, None): 0.15}}, "taobao")
    assert found.published("taobao", "RMBRec", "HR@10") is None


seeds = st.integers(0, 5)
samples = st.dictionaries(
    seeds.map(lambda seed: (seed, None)), st.integers(0, 1000).map(lambda n: n / 1000), min_size=1
)


@given(samples, samples)
def test_verdicts_turn_round_with_the_pair(first, second):
    said, difference, *_ = decide(first, second)
    back, other, *_ = decide(second, first)
    assert difference == pytest.approx(-other)
    assert {said, back} in ({"holds", "does not hold"}, {"undecided"})
    if min(len(first), len(second)) < 2:
        assert said == "undecided"


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=6), st.lists(st.integers(0, 1000), min_size=6, max_size=6))
def test_a_paired_verdict_is_the_t_test_of_scipy(first, second):
    a = {(seed, None): value / 1000 for seed, value in enumerate(first)}
    b = {(seed, None): value / 1000 for seed, value in enumerate(second[: len(first)])}
    x, y = np.array(list(a.values())), np.array(list(b.values()))
    if np.ptp(x - y) < 1e-6:
        return
    said, *_ = decide(a, b)
    test = stats.ttest_rel(x, y)
    assert (said != "undecided") == (test.pvalue < 0.05)
    if said != "undecided":
        assert (said == "holds") == (test.statistic > 0)


def test_an_unpaired_verdict_is_welchs():
    a, b = {(1, None): 0.5, (2, None): 0.52, (3, None): 0.51}, {(7, None): 0.3, (8, None): 0.36}
    said, _, low, high, _ = decide(a, b)
    interval = stats.ttest_ind(list(a.values()), list(b.values()), equal_var=False).confidence_interval(0.95)
    assert (low, high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert said == ("holds" if interval.low > 0 else "undecided")


def test_rules_without_luck_are_compared_as_they_are():
    assert decide({(1, None): 0.5}, {(1, None): 0.3}, fixed=True)[0] == "holds"
    assert decide({(1, None): 0.3}, {(1, None): 0.3}, fixed=True)[0] == "does not hold"
    assert decide({(1, None): 0.5}, {(1, None): 0.3})[0] == "undecided"


def test_claims_are_decided_by_the_cells(as_published):
    study = Study.load("table3")
    full = {(1, None): 0.50, (2, None): 0.51, (3, None): 0.52}
    found = fake_results(
        study,
        {
            "RMBRec": full,
            "w/o RRM": {key: value - 0.1 for key, value in full.items()},
            "w/o ORM": {key: value + 0.1 for key, value in full.items()},
            "w/o cart": {(1, None): 0.6},
        },
        "tmall10k",
    )
    said = {each.claim.text: each.verdict for each in verdicts(found)}
    assert said == {
        "RRM matters: without it RMBRec is worse": "holds",
        "RRM matters more than ORM": "holds",
        "ORM matters: without it RMBRec is worse": "does not hold",
        "TMall improves without carts": "undecided",  # one seed
    }


def test_pairs_that_were_not_run_share_a_line(as_published):
    missing = {(1, None): None}
    cells = {"RMBRec": {(1, None): 0.5}, "LightGCN": missing, "SimGCL": missing, "CRGCN": {(1, None): 0.4}}
    found = verdicts(fake_results(Study.load("table2"), cells, "taobao15k"))
    assert found[0].verdict == "undecided"
    assert found[0].evidence == ("not run yet: RMBRec against LightGCN; RMBRec against SimGCL",)
    page = tables.markdown(fake_results(Study.load("table2"), cells, "taobao15k"))
    assert page.count("not run yet") == 2  # and that multi-behavior models outperform LightGCN
    assert page.index("## Verdicts") < page.index("<details>") < page.index("not run yet") < page.index("</details>")


def test_an_anchor_is_compared_with_every_seed(as_published):
    study = Study.load("table2")
    found = fake_results(
        study, {"RMBRec": {(1, None): 0.1, (2, None): 0.11}, "conversion": {(1, None): 0.4}}, "taobao15k"
    )
    said = {each.claim.text: each for each in verdicts(found)}
    verdict = said["RMBRec surpasses a rule that re-surfaces what a user has touched"]
    assert verdict.verdict == "does not hold"
    assert "n = 2" in verdict.evidence[0]


def test_a_drop_is_taken_from_the_clean_run_of_the_same_seed(as_published):
    study = Study.load("noise")
    noisy = [(1, 0), (1, 1), (1, 2)]
    cells = {
        "RMBRec|no noise": {(1, None): 0.5},
        "RMBRec|add 50%": dict(zip(noisy, (0.49, 0.48, 0.485), strict=True)),
        "UIPL|no noise": {(1, None): 0.2},
        "UIPL|add 50%": dict(zip(noisy, (0.10, 0.11, 0.105), strict=True)),
    }
    found = verdicts(fake_results(study, cells, "taobao15k"))
    assert found[0].verdict == "holds"
    assert found[0].evidence[0].startswith("drop of RMBRec 0.0300, UIPL 0.4750 at add 50%, n = 3")
    missing = {f"UIPL|{level} 10%": {(1, 0): None} for level in ("add", "remove")}
    missing |= {name.replace("UIPL", "RMBRec"): runs for name, runs in missing.items()}
    (verdict,) = verdicts(fake_results(study, cells | missing, "taobao15k"))
    assert verdict.evidence[-1] == "not run yet: drop of RMBRec against UIPL at add 10%, remove 10%"
    cells["UIPL|add 50%"] = dict.fromkeys(noisy, 0.199)
    assert verdicts(fake_results(study, cells, "taobao15k"))[0].verdict == "does not hold"


def test_noise_levels_are_ranked_on_their_own_and_show_their_drop(as_published):
    cells = {
        "RMBRec|no noise": {(1, None): 0.5},
        "RMBRec|add 50%": {(1, 0): 0.4},
        "UIPL|no noise": {(1, None): 0.2},
        "UIPL|add 50%": {(1, 0): 0.1},
        "UIPL|remove 50%": {(1, 0): 0.21},
    }
    grid, other = grids(fake_results(Study.load("noise"), cells, "taobao15k"))
    assert grid.title.endswith("taobao15k, HR@10")
    assert other.title.endswith("taobao15k, NDCG@10")
    assert grid.columns == ("", "runs", "no noise", "add 50%", "remove 50%")
    assert [[box.text for box in row] for row in grid.rows] == [
        ["RMBRec", "2/2", "0.5000", "0.4000 (-20.0%)", ""],
        ["UIPL", "3/3", "0.2000", "0.1000 (-50.0%)", "0.2100 (+5.0%)"],
    ]
    assert [[box.best for box in row[2:]] for row in grid.rows] == [[True, True, False], [False, False, False]]
    assert [[box.second for box in row[2:]] for row in grid.rows] == [[False] * 3, [True, True, False]]
    assert "In brackets: the change from the same row without noise." in grid.caption


def test_facts_of_data_are_those_of_the_tables(small_folder, small):
    found = measured(str(small_folder), ["users", "interactions", "count:buy", "bar:view", "bar:collect", "dt"])
    assert found["users"] == 120
    assert found["count:buy"] == sum(small.counts[part] for part in ("buy", "valid", "test"))
    assert found["interactions"] == sum(small.counts.values())
    assert found["bar:view"] == pytest.approx(0.55, abs=0.01)
    assert "bar:collect" not in found


def test_statistics_stand_beside_the_published_ones(as_published):
    facts = {"beibei": {"users": 21716.0, "dt": 0.0300}}
    found = Results(Study.load("table1"), ("beibei",), (), facts, Store(Path("nowhere")))
    (grid,) = grids(found)
    row = [box.text for box in grid.rows[0]]
    assert row[1] == "21,716 ="
    assert row[-1] == "0.0300 (0.0244)"
    assert row[3] == "-"


def test_the_subject_is_tested_against_the_best_rival_over_users(text, write, store):
    rules = text.replace('model = "rmbrec"\ntraining = { epochs = 2 }', 'model = "conversion"').replace(
        "[[rows]]", '[[rows]]\nname = "rival"\nmodel = "popularity"\n\n[[rows]]', 1
    )
    study = Study.load(write(rules))
    found = run(study, store)
    made = paired_tests(found, study.datasets[0])
    assert [(each.row, each.metric) for each in made] == [("full", "HR@10"), ("full", "NDCG@10")]
    assert made[0].rival in ("rival", "w/o view", "w/o cart")
    cells = {each.cell.row: each.measured("HR@10").mean for each in found.cells}
    assert made[0].difference == pytest.approx(cells["full"] - cells[made[0].rival])
    assert all(each.p <= each.p_holm <= min(1, 2 * each.p + 1e-12) for each in made)
    assert f"| full | {made[0].rival} | HR@10 | {made[0].difference:+.4f} |" in tables.markdown(found)


def test_the_caption_names_what_selected_the_epoch(study, store, tmp_path):
    found = run(study.replace(rows=study.rows[:1]), store, seeds=[1])
    assert "epoch by the dataset's validation HR@10" in accuracy_grid(found, study.datasets[0]).caption
    held = study.replace(rows=study.rows[:1], base=study.base.replace(validation="holdout"))
    none = study.replace(rows=study.rows[:1], base=study.base.replace(validation="none"))
    assert "the last epoch" in accuracy_grid(run(none, store, seeds=[1]), study.datasets[0]).caption
    again = run(held, store, seeds=[1])
    shown = accuracy_grid(again, study.datasets[0]).caption
    assert "epoch by a held-out train pair per user as validation HR@10" in shown
