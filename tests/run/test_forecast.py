"""The forecast of a fit: measured in a process of its own, and told when that process dies."""

import json
import sys

import pytest

from mbgraph.config import FitConfig
from mbgraph.errors import DataError, RunError, UsageError
from mbgraph.run import forecast, plan

OPTIONS = {"embedding_dim": 8, "num_layers": 1}


@pytest.fixture(scope="module")
def planned(small_folder):
    resolved, told = [], []
    config = FitConfig(dataset=str(small_folder), options=OPTIONS, training={"batch_size": "auto"})
    return plan(config, resolved.append, told.append), resolved, told


def test_a_step_is_measured_part_by_part(planned, small):
    made, resolved, told = planned
    assert (made["dataset"], made["model"], made["variant"]) == ("small", "rmbrec", "mbgraph")
    assert made["parameters"] == 8 * (small.num_users + small.num_items)
    assert made["steps_per_epoch"] == 1
    assert list(made["memory"]) == ["imports", "data", "model", "training step", "evaluation"]
    assert made["memory_mb"] == pytest.approx(sum(made["memory"].values()), abs=0.5)
    assert 100 < made["memory"]["imports"] < made["memory_mb"] < 2000
    assert made["available_mb"] > 0
    assert resolved[0] == resolved[0].resolve(50)
    assert told == made["notices"] == ["batch_size=auto took 1,024, the model's own: an epoch has 1 step"]
    assert resolved[0].training["batch_size"] == 1024


def test_a_large_model_takes_its_tables_and_their_copies():
    """Tables of 3,000 x 2,000 numbers: the table, its gradient, two moments and the best epoch.

    The growth itself, not what it is over a small model's: that one's step compiles kernels, which rows as wide as
    these do not use.
    """
    options = {"embedding_dim": 2_000, "num_layers": 1}
    made = plan(FitConfig(model="lightgcn", options=options, training={"batch_size": 64}))
    taken = [made["memory"][part] for part in ("model", "training step")]
    table = 3_000 * 2_000 * 4 / 2**20
    assert made["parameters"] == 3_000 * 2_000
    assert sum(taken) > 4 * table


@pytest.mark.slow
def test_untrained_models_only_score(small_folder):
    made = plan(FitConfig(dataset=str(small_folder), model="conversion"))
    assert list(made["memory"]) == ["imports", "data", "model", "evaluation"]
    assert (made["parameters"], made["steps_per_epoch"]) == (0, 0)


@pytest.mark.parametrize(
    ("config", "kind", "message"),
    [
        ({"dataset": "nowhere"}, UsageError, "unknown dataset 'nowhere'"),
        ({"validation": "given", "protocol": "temporal:9"}, (UsageError, DataError), "."),
    ],
)
def test_what_a_fit_would_refuse_is_refused(config, kind, message):
    with pytest.raises(kind, match=message) as caught:
        plan(FitConfig(**config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "a training step does not fit into memory: the pro",
        ),
        ("raise MemoryError", "a training step does not fit into memory"),
        ("raise SystemExit(3)", r"a training step ended the process that tried it \(exit code 3\)"),
        ("raise ValueError('odd')", r"a training step ended .*\(exit code 1\): ValueError: odd; see mbgraph doctor"),
    ],
)
def test_a_process_that_dies_is_reported(monkeypatch, code, message):
    monkeypatch.setattr(
        forecast, "_CHILD", f"import json\nprint(json.dumps({{'stage': 'a training step'}}), flush=True)\n{code}"
    )
    with pytest.raises(RunError, match=message) as caught:
        plan(FitConfig())
    assert caught.value.remedy


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_runs_out_in_a_step(monkeypatch, small_folder, error):
    def step(trainer):
        raise error

    monkeypatch.setattr(forecast, "_one_step", step)
    config = FitConfig(dataset=str(small_folder), options=OPTIONS)
    with pytest.raises(RunError, match="does not fit into memory; lower batch_size or embedding_dim"):
        list(forecast.measure(config))
    monkeypatch.setattr(forecast, "_one_step", lambda trainer: (_ for _ in ()).throw(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        list(forecast.measure(config))


def test_the_process_tells_errors_as_lines(monkeypatch, capsys):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"dataset": "nowhere"})))
    forecast.main()
    *_, last = capsys.readouterr().out.splitlines()
    told = json.loads(last)
    assert (told["error"], told["remedy"] is not None) == ("UsageError", True)


def test_one_step_is_one_step(small_folder, monkeypatch):
    from mbgraph.training.trainer import Trainer

    steps, real = [], Trainer._step
    monkeypatch.setattr(Trainer, "_step", lambda self, *rest: steps.append(1) or real(self, *rest))
    told = list(forecast.measure(FitConfig(dataset=str(small_folder), options=OPTIONS, training={"batch_size": 16})))
    assert len(steps) == 1
    assert [entry["stage"] for entry in told[:-1]] == [
        "loading the data", "building the model", "a training step", "a block of the evaluation",
    ]  # fmt: skip
    assert told[-1]["answer"]["steps_per_epoch"] == 8
