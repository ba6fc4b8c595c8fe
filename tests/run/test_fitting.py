"""Runs: what is written, what can be loaded again, and every way it can be wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from mbgraph import manifest
from mbgraph.config import FitConfig
from mbgraph.data.formats.npz import write_npz
from mbgraph.data.interactions import Pairs
from mbgraph.errors import RunError, UsageError
from mbgraph.run import Run, fit, resume
from mbgraph.training import Callback, Trainer

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
        "per_user.npz", "per_user_valid.npz", "manifest.json", ".lock",
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
    config = Run.load(finished[0]).config
    assert config == config.resolve(50)
    assert (config.variant, config.training["weight_decay"], config.training["epochs"]) == ("mbgraph", 1e-3, 3)
    assert [entry["name"] for entry in config.regularizers] == ["infonce", "rex", "l2"]
    assert (config.evaluation["mask"], config.evaluation["k"]) == ("train-target", (10, 20))


def test_untrained_models_are_runs_too(folder, tmp_path):
    outcome = fit(FitConfig(dataset=str(folder), model="conversion"), tmp_path / "c")
    assert outcome["epochs"] == 0
    assert Run.load(tmp_path / "c").model().name == "conversion"
    with pytest.raises(UsageError, match="is not trained and reads no training options"):
        fit(FitConfig(dataset=str(folder), model="conversion", training={"lr": 1.0}), tmp_path / "d")


def test_auto_becomes_numbers_that_are_told_and_written(folder, tmp_path, monkeypatch):
    """120 users in batches of 8 own ones are 15 steps; with at most 4 it takes four times as many users."""
    from mbgraph.models import RMBRec, batch_rule

    real = RMBRec.Options.training
    monkeypatch.setattr(RMBRec.Options, "training", lambda self: real(self).replace(batch_size=8))
    monkeypatch.setattr(batch_rule, "MOST_STEPS", 4)
    asked = FitConfig(dataset=str(folder), training={"epochs": 1, "batch_size": "auto", "lr": 0.01}, options=SMALL)
    told, shown = [], []
    outcome = fit(asked, tmp_path / "auto", announce=shown.append, warn=told.append)
    note = (
        "batch_size=auto took 32, 4 times the model's own: an epoch has 4 steps over the whole graph instead of 15; "
        "lr 0.02 (lr_scaling=sqrt); infonce in blocks of 8"
    )
    assert told[0] == outcome["notices"][0] == note
    assert json.loads((tmp_path / "auto" / "env.json").read_text())["chosen"] == [note]
    config = Run.load(tmp_path / "auto").config
    assert (config.training["batch_size"], config.training["lr"]) == (32, 0.02) == (
        shown[0].training["batch_size"], shown[0].training["lr"]
    )  # fmt: skip
    assert [(entry["name"], entry.get("candidates"), entry.get("block")) for entry in config.regularizers] == [
        ("infonce", "block", 8), ("rex", None, None), ("l2", None, None)
    ]  # fmt: skip
    again = fit(config, tmp_path / "again")
    assert (again["test"], again["notices"]) == (outcome["test"], outcome["notices"][1:])
    assert "chosen" not in json.loads((tmp_path / "again" / "env.json").read_text())


def test_regularizers_change_by_name(folder, tmp_path):
    config = FitConfig(
        dataset=str(folder),
        training=QUICK,
        options=SMALL,
        regularizers=[{"name": "infonce", "temperature": 0.2}, {"name": "rex", "weight": 0}, {"name": "irmv1"}],
    )
    fit(config, tmp_path / "r")
    entries = {entry["name"]: entry for entry in Run.load(tmp_path / "r").config.regularizers}
    assert entries["infonce"]["temperature"] == 0.2
    assert entries["infonce"]["weight"] == 1.0
    terms = json.loads((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()[0])["terms"]
    assert set(terms) == {"main", "infonce", "irmv1", "l2", "total"}


@pytest.mark.parametrize("epochs_before_kill", [pytest.param(0, marks=pytest.mark.slow), 2])
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
    manifest.note(path, ["config.toml"])
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
    with pytest.raises(UsageError, match="already exists and is not empty; continue it with --resume"):
        fit(FitConfig(dataset=str(folder)), path)
    with pytest.raises(UsageError, match="has no variants"):
        FitConfig(dataset=str(folder), model="popularity", variant="paper")
    with pytest.raises(RunError, match="no run directory at"):
        resume(tmp_path / "nowhere")


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


def metrics_of(path):
    """Return the log of a run without its times."""
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def same_files(one, other):
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert metrics_of(one) == metrics_of(other)
    written = [(path / "config.toml").read_text() for path in (one, other)]
    assert written[0] == written[1]


def quick(folder, **training):
    return FitConfig(dataset=str(folder), training={**QUICK, **training}, options=SMALL)


@pytest.mark.parametrize("decay", [{}, {"lr_decay": 0.5, "lr_decay_steps": 3}])
def test_a_finished_run_goes_on_as_if_it_had_been_started_so(folder, tmp_path, decay):
    fit(quick(folder, epochs=2, **decay), tmp_path / "short")
    extended = resume(tmp_path / "short", epochs=5)
    whole = fit(quick(folder, epochs=5, **decay), tmp_path / "whole")
    assert (extended["epochs"], extended["test"]) == (5, whole["test"])
    same_files(tmp_path / "short", tmp_path / "whole")
    assert Run.load(tmp_path / "short").config.training["epochs"] == 5


def test_patience_goes_on_beyond_an_early_stop(folder, tmp_path):
    """A large step size makes validation worse soon, so that patience ends the run."""
    settings = {"epochs": 12, "lr": 0.5, "weight_decay": 0.0}
    short = fit(quick(folder, patience=1, **settings), tmp_path / "short")
    assert short["epochs"] < 12
    again = resume(tmp_path / "short", epochs=30)
    assert (again["epochs"], again["test"]) == (short["epochs"], short["test"])
    assert "no epoch is left to train: after epoch" in again["notices"][0]
    assert "a larger --patience goes on" in again["notices"][0]
    extended = resume(tmp_path / "short", patience=50, epochs=12)
    whole = fit(quick(folder, patience=50, **settings), tmp_path / "whole")
    assert (extended["epochs"], extended["test"]) == (12, whole["test"]) != (short["epochs"], short["test"])
    same_files(tmp_path / "short", tmp_path / "whole")
    with pytest.raises(
        UsageError, match=r"with patience 0 .* would have ended after epoch \d+, and it has trained 12; ch"
    ):
        resume(tmp_path / "short", patience=0)


def test_limits_that_cannot_be_kept(folder, finished, tmp_path):
    path, outcome = finished
    with pytest.raises(UsageError, match=r"has trained 3 epochs, more than 2; ask for more than 3, or fit again"):
        resume(path, epochs=2)
    with pytest.raises(UsageError, match="epochs of the training options must be a whole number from 1"):
        resume(path, epochs=0)
    assert resume(path, epochs=3)["test"] == outcome["test"]
    fit(FitConfig(dataset=str(folder), model="conversion"), tmp_path / "untrained")
    with pytest.raises(UsageError, match="'conversion' is not trained and reads no training options"):
        resume(tmp_path / "untrained", epochs=5)
    fit(quick(folder, epochs=1).replace(validation="none"), tmp_path / "blind")
    with pytest.raises(UsageError, match="has no validation pairs, so patience changes nothing; leave --patience out"):
        resume(tmp_path / "blind", patience=5)
    assert resume(tmp_path / "blind", epochs=2)["epochs"] == 2


def test_an_extension_that_is_killed_is_not_taken_for_finished(folder, tmp_path):
    class Stop(Callback):
        def on_epoch_end(self, trainer, record):
            raise KeyboardInterrupt

    fit(quick(folder, epochs=1), tmp_path / "r")
    stopped = resume(tmp_path / "r", [Stop()], epochs=4)
    assert stopped["interrupted"] is True
    assert not (tmp_path / "r" / "test.json").exists()
    assert not (tmp_path / "r" / "per_user.npz").exists()
    assert resume(tmp_path / "r")["epochs"] == 4
    assert len(json.loads((tmp_path / "r" / "env.json").read_text())["extended"]) == 1


def test_two_trainings_do_not_share_a_log(small, tmp_path):
    from mbgraph.models import LightGCN

    def trainer():
        return Trainer(LightGCN(small.graph, small.target, embedding_dim=4), small, epochs=2, directory=tmp_path / "d")

    first = trainer()
    first.fit()
    with pytest.raises(
        UsageError, match=r"d holds a training already; continue it with fit\(resume=True\), or choose an"
    ):
        trainer().fit()
    assert len(metrics_of(tmp_path / "d")) == 2
    assert trainer().fit(resume=True).epochs == 2
    assert len(metrics_of(tmp_path / "d")) == 2


def test_a_small_catalogue_has_small_cut_offs(tiny, tmp_path):
    write_npz(tiny, tmp_path / "tiny")
    config = FitConfig(dataset=str(tmp_path / "tiny"), model="popularity", evaluation={"k": [2, 10, 20]})
    outcome = fit(config, tmp_path / "run")
    assert [name for name in outcome["test"] if name.startswith("HR")] == ["HR@2", "HR@5"]
    written = Run.load(tmp_path / "run").config
    assert (written.evaluation["k"], written.evaluation["metric"]) == ((2, 5), "HR@5")


def test_a_log_of_one_behavior(tiny, tmp_path):
    bare = tiny.replace(edges={"buy": tiny.edges["buy"]})
    write_npz(bare, tmp_path / "one")
    with pytest.raises(
        UsageError, match="^rmbrec needs an auxiliary behavior beside the target; use --model lightgcn$"
    ):
        fit(FitConfig(dataset=str(tmp_path / "one")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config = FitConfig(dataset=str(tmp_path / "one"), model="lightgcn", training={"epochs": 1}, options=SMALL)
    assert fit(config, tmp_path / "run")["epochs"] == 1


def test_a_validation_split_unlike_test_is_told(small, tmp_path):
    """Test pairs that nobody visited, where train purchases mostly are."""
    visited = {(u, i) for b in small.auxiliary for u, i in zip(small.edges[b].user, small.edges[b].item, strict=True)}
    cells = [(u, i) for u, i in zip(small.test.user, small.test.item, strict=True) if (u, i) not in visited]
    users, items = map(list, zip(*cells, strict=True))
    unlike = small.replace(splits={"test": Pairs(users, items)})
    write_npz(unlike, tmp_path / "unlike")
    told = []
    outcome = fit(quick(tmp_path / "unlike", epochs=1), tmp_path / "run", warn=told.append)
    assert outcome["notices"] == told
    (line,) = told
    assert line.startswith("validation is unlike test: ")
    assert "of its pairs are visited, 0% of test's (--validation holdout); split again with --protocol loo" in line
    assert line.endswith("--validation none")
    assert "\n" not in line
    quiet = fit(quick(tmp_path / "unlike", epochs=1).replace(validation="none"), tmp_path / "none", warn=told.append)
    assert quiet["notices"] == []
