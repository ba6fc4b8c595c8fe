"""`mbgraph compare` on run directories written by hand."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from mbgraph import manifest
from mbgraph.cli.main import cli


def write(path, values, *, users=None, content="a", mask="train-target", ties="realistic", split="test"):
    path.mkdir()
    (path / "config.toml").write_text('format = 1\ndataset = "d"\nmodel = "lightgcn"\nseed = 7\n')
    (path / "dataset.json").write_text(json.dumps({"name": f"d{content}", "content_hash": content * 64}))
    ids = np.array([f"u{row}" for row in range(len(values))] if users is None else users)
    np.savez(
        path / "per_user.npz",
        split=np.array(split),
        mask=np.array(mask),
        ties=np.array(ties),
        user_id=ids,
        **{"HR@10": np.array(values, float), "NDCG@10": np.array(values) / 2, "MAP@10": np.array(values) / 3},
    )
    manifest.note(path, ["config.toml", "dataset.json", "per_user.npz"])
    return path


@pytest.fixture
def runs(tmp_path):
    rng = np.random.default_rng(0)
    return write(tmp_path / "one", rng.random(40) < 0.3), write(tmp_path / "two", rng.random(40) < 0.6)


def run(*arguments):
    return CliRunner().invoke(cli, ["compare", *map(str, arguments)])


def test_table(runs):
    result = run(*runs)
    assert result.exit_code == 0, result.output
    assert "HR@10" in result.stdout
    assert "NDCG@10" in result.stdout
    assert "MAP@10" not in result.stdout
    assert "40 users, p-values corrected for 2 metrics (Holm)" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines() if "│" in line) <= 80


def test_json(runs):
    result = run(*runs, "--metric", "MAP@10", "--json")
    answer = json.loads(result.stdout)
    assert list(answer["metrics"]) == ["MAP@10"]
    found = answer["metrics"]["MAP@10"]
    assert found["difference"] == pytest.approx(found["mean_b"] - found["mean_a"])
    assert {"t_p", "t_holm", "wilcoxon_p", "wilcoxon_holm", "effect", "low", "high"} <= set(found)
    assert (answer["users"], answer["a"]["model"], answer["a"]["seed"]) == (40, "lightgcn", 7)


def test_a_run_with_itself(runs):
    found = json.loads(run(runs[0], runs[0], "--json").stdout)["metrics"]["HR@10"]
    assert (found["difference"], found["t_p"], found["wilcoxon_p"]) == (0.0, 1.0, 1.0)


def test_other_data_needs_force(runs, tmp_path):
    other = write(tmp_path / "other", np.arange(30) % 2, content="b")
    result = run(runs[0], other)
    assert result.exit_code == 1
    assert "error: the runs stand on different data ('da' and 'db', by content); compare runs of one" in result.stderr
    forced = run(runs[0], other, "--force", "--json")
    assert forced.exit_code == 0, forced.output
    assert json.loads(forced.stdout)["users"] == 30
    assert "warning: the runs stand on different data" in forced.stderr
    assert "da / db test" in run(runs[0], other, "--force").stdout


@pytest.mark.parametrize("how", [{"mask": "none"}, {"ties": "optimistic"}])
def test_other_mask_or_ties_is_an_error_even_by_force(runs, tmp_path, how):
    ((what, value),) = how.items()
    other = write(tmp_path / "open", np.ones(40), **how)
    for flags in ([], ["--force"]):
        result = run(runs[0], other, *flags)
        assert result.exit_code == 2
        assert f"differ in {what}: " in result.stderr
        assert f" and '{value}'; evaluate both runs the same way" in result.stderr


@pytest.mark.parametrize("content", ["{}", "[]"])
def test_a_run_that_does_not_say_its_data(runs, content):
    for path in runs:
        (path / "dataset.json").write_text(content)
        manifest.note(path, ["dataset.json"])
    result = run(*runs)
    assert result.exit_code == 1
    assert "dataset.json does not say which data the run stands on; fit the model again" in result.stderr


def test_validation_results(runs):
    for path in runs:
        with np.load(path / "per_user.npz") as arrays:
            np.savez(path / "per_user_valid.npz", **{**arrays, "split": np.array("valid")})
        manifest.note(path, ["per_user_valid.npz"])
    assert json.loads(run(*runs, "--split", "valid", "--json").stdout)["split"] == "valid"


def test_other_errors(runs, tmp_path):
    result = run(runs[0], tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "no run directory at" in result.stderr
    result = run(*runs, "--metric", "HR@11")
    assert result.exit_code == 2
    assert "unknown metric 'HR@11'; did you mean 'HR@10'?" in result.stderr
    result = run(*runs, "--split", "valid")
    assert result.exit_code == 1
    assert "has no validation results; fit with --validation holdout, or compare test" in result.stderr
    (runs[1] / "per_user.npz").unlink()
    result = run(*runs)
    assert result.exit_code == 1
    assert "not a complete run directory: per_user.npz is missing" in result.stderr


def test_it_needs_neither_torch_nor_dgl(runs):
    code = (
        "import sys; from mbgraph.cli.main import cli\n"
        "cli(sys.argv[1:], standalone_mode=False)\n"
        "sys.exit(str([m for m in ('torch', 'dgl') if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", *map(str, runs)], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "[]", done.stderr
