"""Runs: what is written, what can be loaded again, and every way it can be wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from mbgraph.config import FitConfig
from mbgraph.errors import RunError, UsageError
from mbgraph.run import Run, fit, prepare_dataset, resume

QUICK = {"epochs": 3, "batch_size": 64}
SMALL = {"embedding_dim": 8, "num_layers": 1}


@pytest.fixture(scope="session")
def folder(small_folder):
    return small_folder


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A finished run and what it returned."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    return path, fit(FitConfig(dataset=str(folder), training=QUICK, options=SMALL), path)


def test_the_directory_holds_what_the_design_promises(finished):
    path, outcome = finished
    names = {entry.name for entry in path.iterdir()}
    assert names == {
        "config.toml", "env.json", "dataset.json", "metrics.jsonl", "model.safetensors", "checkpoint.pt", "test.json",
        "per_user.npz", "per_user_valid.npz",
    }  # fmt: skip
    assert len((path / "metrics.jsonl").read_text().splitlines()) == 3
    assert json.loads((path / "test.json").read_text())["test"] == outcome["test"]
    assert set(outcome["test"]) >= {"HR@10", "NDCG@10", "HR@20", "NDCG@20"}
    assert outcome["epochs"] == 3
    assert outcome["peak_memory_mb"] > 0


def test_a_loaded_run_scores_what_was_reported(finished):
    from mbgraph import evaluate

    path, outcome = finished
    run = Run.load(path)
    dataset = run.dataset()
    result = evaluate(run.model(dataset), dataset, split="test", k=(10, 20))
    assert result.metrics == outcome["test"]


def test_its_config_repeats_it(finished, tmp_path):
    from mbgraph.config import read_config

    path, outcome = finished
    again = fit(read_config(path / "config.toml"), tmp_path / "again")
    assert again["test"] == outcome["test"]
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (path / "model.safetensors").read_bytes()


def test_config_is_resolved(finished):
    run = Run.load(finished[0])
    assert run.config["variant"] == "mbgraph"
    assert run.config["training"]["weight_decay"] == 1e-3
    assert run.config["training"]["epochs"] == 3
    assert [entry["name"] for entry in run.config["regularizers"]] == ["infonce", "rex", "l2"]
    assert run.config["evaluation"]["mask"] == "train-target"


def test_untrained_models_are_runs_too(folder, tmp_path):
    outcome = fit(FitConfig(dataset=str(folder), model="conversion"), tmp_path / "c")
    assert outcome["epochs"] == 0
    assert Run.load(tmp_path / "c").model().name == "conversion"
    with pytest.raises(UsageError, match="is not trained and reads no training options"):
        fit(FitConfig(dataset=str(folder), model="conversion", training={"lr": 1.0}), tmp_path / "d")


def test_validation_choices(folder):
    config = FitConfig(dataset=str(folder))
    given = prepare_dataset(config)
    assert given.metadata["validation"] == "given"
    train = len(given.edges["buy"])
    none = prepare_dataset(config.replace(validation="none"))
    assert (len(none.valid), len(none.edges["buy"])) == (0, train)
    merged = prepare_dataset(config.replace(validation="merge"))
    assert (len(merged.valid), len(merged.edges["buy"])) == (0, train + len(given.valid))
    held = prepare_dataset(config.replace(validation="holdout"))
    assert len(held.valid) > 0
    assert len(held.edges["buy"]) + len(held.valid) == train + len(given.valid)
    assert prepare_dataset(config.replace(validation="holdout", seed=9)).content_hash() == held.content_hash()
    assert len(given.test) == len(none.test) == len(held.test) == len(merged.test)


def test_regularizers_change_by_name(folder, tmp_path):
    config = FitConfig(
        dataset=str(folder),
        training=QUICK,
        options=SMALL,
        regularizers=[{"name": "infonce", "temperature": 0.2}, {"name": "rex", "weight": 0}, {"name": "irmv1"}],
    )
    fit(config, tmp_path / "r")
    entries = {entry["name"]: entry for entry in Run.load(tmp_path / "r").config["regularizers"]}
    assert entries["infonce"]["temperature"] == 0.2
    assert entries["infonce"]["weight"] == 1.0
    terms = json.loads((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()[0])["terms"]
    assert set(terms) == {"main", "infonce", "irmv1", "l2", "total"}


@pytest.mark.parametrize("epochs_before_kill", [0, 2])
def test_kill_and_resume_reach_the_same_numbers(folder, finished, tmp_path, epochs_before_kill):
    """SIGKILL at an arbitrary moment of a real process, then resume."""
    path = tmp_path / "killed"
    code = (
        "import sys; from mbgraph.run import fit; from mbgraph.config import FitConfig; "
        "fit(FitConfig(dataset=sys.argv[1], training={'epochs': 400, 'batch_size': 64, 'patience': 1000}, "
        "options={'embedding_dim': 8, 'num_layers': 1}), sys.argv[2])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), str(path)])
    try:
        deadline = time.monotonic() + 120
        lines = path / "metrics.jsonl"
        while time.monotonic() < deadline and process.poll() is None:
            seen = len(lines.read_text().splitlines()) if lines.exists() else 0
            if (path / "config.toml").exists() and seen >= epochs_before_kill:
                break
            time.sleep(0.005)
        assert process.poll() is None, "the run ended before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    # the same configuration, but few epochs, so that the comparison is quick
    text = (path / "config.toml").read_text().replace("epochs = 400", "epochs = 12")
    (path / "config.toml").write_text(text)
    done = len(lines.read_text().splitlines()) if lines.exists() else 0
    if done > 12:
        pytest.skip("the machine was too quick to be interrupted in time")
    resumed = resume(path)
    whole = fit(
        FitConfig(dataset=str(folder), training={**QUICK, "epochs": 12, "patience": 1000}, options=SMALL),
        tmp_path / "whole",
    )
    assert resumed["test"] == whole["test"]
    assert resumed["epochs"] == whole["epochs"] == 12
    assert (path / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_resume_of_a_finished_run_reports_it_again(finished):
    path, outcome = finished
    again = resume(path)
    assert again["test"] == outcome["test"]
    assert again["epochs"] == outcome["epochs"]


def test_errors_name_the_remedy(folder, finished, tmp_path):
    path, _ = finished
    with pytest.raises(RunError, match="already exists; continue it with --resume"):
        fit(FitConfig(dataset=str(folder)), path)
    with pytest.raises(RunError, match="no run directory at"):
        Run.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"not a complete run directory: config.toml is missing; fit the model again"):
        Run.load(tmp_path / "empty")
    with pytest.raises(UsageError, match="has no variants"):
        fit(FitConfig(dataset=str(folder), model="popularity", variant="paper"), tmp_path / "v")


def copy(path, to):
    import shutil

    shutil.copytree(path, to)
    return to


def test_other_version_other_data_other_model(finished, tmp_path):
    path, _ = finished
    newer = copy(path, tmp_path / "newer")
    (newer / "config.toml").write_text((newer / "config.toml").read_text().replace("format = 1", "format = 2"))
    with pytest.raises(RunError, match=r"was written by mbgraph .* in format 2, not 1"):
        Run.load(newer)
    moved = copy(path, tmp_path / "moved")
    record = json.loads((moved / "dataset.json").read_text())
    (moved / "dataset.json").write_text(json.dumps({**record, "content_hash": "0" * 64}))
    with pytest.raises(RunError, match="was made with other data than"):
        Run.load(moved).dataset()
    bare = copy(path, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"no model at .*model.safetensors"):
        Run.load(bare).model()
    torn = copy(path, tmp_path / "torn")
    (torn / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RunError, match="cannot read model"):
        Run.load(torn).model()
    wider = copy(path, tmp_path / "wider")
    text = (wider / "config.toml").read_text().replace("embedding_dim = 8", "embedding_dim = 9")
    (wider / "config.toml").write_text(text)
    with pytest.raises(RunError, match="holds weights of another model"):
        Run.load(wider).model()


def test_unwritable_directory(folder, tmp_path, monkeypatch):
    def refuse(self, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "mkdir", refuse)
    with pytest.raises(RunError, match=r"cannot make .*locked: Permission denied; choose another --out"):
        fit(FitConfig(dataset=str(folder)), tmp_path / "locked")


def test_full_disk_is_one_line_and_keeps_the_last_checkpoint(folder, tmp_path, monkeypatch):
    import errno

    from mbgraph.training.checkpoint import load_checkpoint

    real, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    config = FitConfig(dataset=str(folder), training={**QUICK, "epochs": 50}, options=SMALL)
    with pytest.raises(RunError, match=r"cannot write .*: No space left on device; free some space"):
        fit(config, tmp_path / "full")
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "full" / "checkpoint.pt")["epoch"] >= 1
    assert not list((tmp_path / "full").glob("*.tmp"))


def test_device_and_threads(folder, tmp_path):
    before = torch.get_num_threads()
    try:
        fit(FitConfig(dataset=str(folder), training=QUICK, options=SMALL, threads=1, device="cpu"), tmp_path / "one")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_peak_memory_is_this_process_s_own():
    code = "from mbgraph.run import peak_memory_mb; print(peak_memory_mb())"
    ballast = bytearray(700 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])  # the parent is large while the child starts
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    del ballast
    assert 100 < float(shown) < 600
