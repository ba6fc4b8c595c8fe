"""Loggers against the real libraries, offline, where they are installed."""

from __future__ import annotations

import importlib.util

import pytest
from click.testing import CliRunner

from mbgraph.cli.main import cli
from mbgraph.config import FitConfig
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.run import fit, resume
from mbgraph.training import loggers
from mbgraph.training.loggers import LOGGERS, make_logger, scalars


def needs(library):
    return pytest.mark.skipif(importlib.util.find_spec(library) is None, reason=f"{library} is not installed")


@pytest.fixture
def logged(small_folder, tmp_path, monkeypatch):
    """Train three epochs, and two more after a resume, into the logger called NAME."""
    monkeypatch.chdir(tmp_path)

    def trained(name):
        config = FitConfig(dataset=str(small_folder), training={"epochs": 3}, model="lightgcn")
        first = fit(config, tmp_path / "run", [make_logger(name)])
        resume(tmp_path / "run", [make_logger(name)], epochs=5)
        return tmp_path / "run", first

    return trained


def records(run):
    import json

    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@needs("tensorboard")
def test_tensorboard_holds_every_figure_of_every_epoch(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = logged("tensorboard")
    read = EventAccumulator(str(run / "tensorboard"))
    read.Reload()
    found = {name: {e.step: e.value for e in read.Scalars(name)} for name in read.Tags()["scalars"]}
    assert found["terms/main"] == pytest.approx({r["epoch"]: r["terms"]["main"] for r in records(run)})
    assert found["valid/HR_at_10"] == pytest.approx({r["epoch"]: r["valid"]["HR@10"] for r in records(run)})
    assert len(found["terms/main"]) == 5


@needs("mlflow")
def test_mlflow_goes_on_in_the_same_run(logged, tmp_path, monkeypatch):
    import mlflow
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    run, _ = logged("mlflow")
    client = MlflowClient()
    experiment = client.get_experiment_by_name("mbgraph")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["model"] == "lightgcn"
    history = client.get_metric_history(found.info.run_id, "terms/main")
    assert {m.step: m.value for m in history} == pytest.approx({r["epoch"]: r["terms"]["main"] for r in records(run)})


@needs("wandb")
def test_wandb_stays_offline(logged, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run, _ = logged("wandb")
    assert list((run / "wandb").rglob("*.wandb"))
    assert (run / "wandb.json").is_file()


def test_figures_have_one_name_each():
    record = {"epoch": 2, "terms": {"main": 1.0}, "gradient_norms": {"main": 2.0}, "valid": {"NDCG@20": 3.0}}
    assert scalars(record) == {"terms/main": 1.0, "gradient_norms/main": 2.0, "valid/NDCG_at_20": 3.0}


@pytest.mark.parametrize("name", LOGGERS)
def test_a_missing_library_says_what_to_install(name, monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda library: None)
    with pytest.raises(
        UsageError, match=rf'logging to {name} needs \w+; install it with: pip install "mbgraph\[{name}\]"'
    ):
        make_logger(name)


def test_an_unknown_logger_names_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown logger 'tensorbord'; did you mean 'tensorboard'?"):
        make_logger("tensorbord")
    result = CliRunner().invoke(cli, ["fit", "--log", "tensorbord"])
    assert result.exit_code == 2
    assert "did you mean 'tensorboard'?" in result.stderr
