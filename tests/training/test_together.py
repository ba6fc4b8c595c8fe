"""Processes that train one model together come to the numbers of one; one of them writes and speaks."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import psutil
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from mbgraph import processes
from mbgraph.cli.main import cli
from mbgraph.errors import UsageError
from mbgraph.models import MODELS
from mbgraph.testing.recommenders import toy_dataset
from mbgraph.training import Trainer

TRAINED = [name for name in MODELS if MODELS.get(name).trainable]
CASES = {
    "compiled": ("rmbrec", {}),
    "packed rows": ("rmbrec", {"row_dtype": "bfloat16"}),
    "no kernels": ("rmbrec", {"backend": "torch"}),
}
"""Every way in which rows are shared."""

TRAIN = """
    import json, os, sys, torch
    from mbgraph import processes
    from mbgraph.errors import MbgraphError
    from mbgraph.models import MODELS
    from mbgraph.testing.recommenders import toy_dataset
    from mbgraph.training import Trainer

    torch.set_num_threads(1)
    folder, epochs, cases = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    told = {}
    with processes.joined():
        told["who"] = [processes.rank(), processes.count(), processes.is_first()]
        told["told"] = processes.tell({"from": processes.rank()})
        told["any"] = [processes.any_of(processes.rank() == 1), processes.any_of(False)]
        def refuse():
            raise __import__("mbgraph").errors.UsageError("no room", "make some")
        for name, act in {
            "first": lambda: processes.first(refuse),
            "same": lambda: processes.check_same("data", str(processes.rank())),
        }.items():
            try:
                act()
            except MbgraphError as error:
                told[name] = [type(error).__name__, str(error)]
        told["value"] = processes.first(lambda: processes.rank())
        for case, (name, options) in cases.items():
            ds = toy_dataset()
            model = MODELS.get(name)(ds.graph, ds.target, rng=1, **options)
            own = os.path.join(folder, case)
            os.makedirs(own, exist_ok=True)
            trainer = Trainer(model, ds, rng=3, epochs=epochs, batch_size=12, device="cpu", directory=own)
            trainer.fit(resume=os.path.exists(os.path.join(own, "checkpoint.pt")))
    print(json.dumps(told))
"""


def start(number, *command, world=2, **environment):
    """Start one of the processes as torchrun does."""
    own = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": world, "GLOO_SOCKET_IFNAME": "lo", **environment}
    return subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **{key: str(own[key]) for key in own}},
    )  # fmt: skip


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def together(*command, world=2):
    """Run a command in two processes; return what each printed."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    started = [start(number, *command, world=world, **meeting) for number in range(world)]
    ended = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0] * world, ended
    return [out for out, _ in ended]


def alone(case, epochs):
    name, options = case
    ds = toy_dataset()
    model = MODELS.get(name)(ds.graph, ds.target, rng=1, **options)
    trainer = Trainer(model, ds, rng=3, epochs=epochs, batch_size=12, device="cpu")
    trainer.fit()
    return trainer


def check(folder, cases, epochs):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, case in cases.items():
            expected = alone(case, epochs)
            lines = (folder / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            records = [json.loads(line) for line in lines]
            assert len(records) == epochs, name
            for mine, other in zip(records, expected.records, strict=True):
                assert mine["terms"] == pytest.approx(other["terms"], rel=1e-6), name
                assert mine["valid"] == other["valid"], name
            for key, tensor in load_file(folder / name / "model.safetensors").items():
                torch.testing.assert_close(tensor, expected._best[key], rtol=1e-6, atol=1e-8)
    finally:
        torch.set_num_threads(threads)


def test_two_processes_come_to_the_numbers_of_one(tmp_path):
    code = textwrap.dedent(TRAIN)
    outputs = [json.loads(text) for text in together("-c", code, tmp_path, 1, json.dumps(CASES))]
    assert [told["who"] for told in outputs] == [[0, 2, True], [1, 2, False]]
    for told in outputs:
        assert (told["told"], told["any"], told["value"]) == ({"from": 0}, [True, False], 0)
        assert told["first"] == ["UsageError", "no room; make some"]
        assert told["same"] == [
            "RunError", "the processes do not have the same data; give every machine the same data"
        ]  # fmt: skip
    check(tmp_path, CASES, 1)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_every_model_in_several_processes(tmp_path, world):
    """And resumed. MBSSL's update rule derives every term on its own: they exchange as often as it does."""
    cases = {name: (name, {}) for name in TRAINED}
    for epochs in (1, 2):
        together("-c", textwrap.dedent(TRAIN), tmp_path, epochs, json.dumps(cases), world=world)
        check(tmp_path, cases, epochs)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_torchrun_trains_as_one_process_does_and_a_killed_run_resumes(tmp_path):
    quickly = ["--threads", "1", "--set", "embedding_dim=8", "--set", "num_layers=2", "--json", "--quiet"]
    options = ["--epochs", "3", *quickly]
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo"}

    def fit(command, *arguments):
        done = subprocess.run(
            [*command, "-m", "mbgraph", "fit", *arguments], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    one = json.loads(fit([sys.executable], *options, "--out", str(tmp_path / "one")))
    (line,) = fit(run, *options, "--out", str(tmp_path / "two")).splitlines()  # one of them speaks
    two = json.loads(line)
    assert (two["valid"], two["test"], two["best_epoch"]) == (one["valid"], one["test"], one["best_epoch"])
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    facts = [json.loads((tmp_path / name / "env.json").read_text(encoding="utf-8")) for name in ("one", "two")]
    assert [each["processes"] for each in facts] == [1, 2]

    killed = tmp_path / "killed"
    long = ["400" if option == "3" else option for option in options]
    process = subprocess.Popen(
        [*run, "-m", "mbgraph", "fit", *long, "--set", "patience=1000", "--out", str(killed)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    lines = killed / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (lines.exists() and lines.read_text().count("\n") >= 1) and time.monotonic() < deadline:
        time.sleep(0.05)
    started = psutil.Process(process.pid)
    family = [*started.children(recursive=True), started]
    for each in family:  # torchrun gives its processes sessions of their own
        each.kill()
    process.wait()
    psutil.wait_procs(family)
    done = lines.read_text(encoding="utf-8").count("\n")
    resumed = json.loads(fit(run, "--resume", str(killed), "--epochs", str(done + 2), "--json", "--quiet"))
    whole = json.loads(
        fit([sys.executable], *(str(done + 2) if option == "3" else option for option in options),
            "--set", "patience=1000", "--out", str(tmp_path / "whole"))
    )  # fmt: skip
    assert (resumed["epochs"], resumed["valid"], resumed["test"]) == (done + 2, whole["valid"], whole["test"])


# --- what is refused, in one line -----------------------------------------------------------------------------------


def as_process(monkeypatch, rank, world):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)


def test_a_process_alone_needs_nobody(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes.joined():
        assert (processes.rank(), processes.count(), processes.is_first()) == (0, 1, True)
        assert processes.tell({"a": 1}) == {"a": 1}
        assert processes.first(lambda: 3) == 3
        processes.check_same("data", "x")
        processes.share_rows([], [])
        processes.follow([torch.ones(2)])
        assert processes.any_of(True)
        assert not processes.any_of(False)


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("one", "2"), ("0", "two"), ("0", "0")])
def test_an_environment_that_names_no_process(monkeypatch, rank, world):
    as_process(monkeypatch, rank, world)
    with pytest.raises(UsageError, match=f"RANK={rank} and WORLD_SIZE={world} name no process; start with torchrun"):
        processes.asked_for()


def test_a_process_group_of_somebody_else_is_left_alone(monkeypatch):
    as_process(monkeypatch, "0", "2")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(UsageError, match="somebody else has opened a process group here"), processes.joined():
        pass
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    with (
        pytest.raises(UsageError, match=r"this build of torch knows no torch.distributed; start one"),
        processes.joined(),
    ):
        pass


def test_others_that_are_not_reached_are_one_line(monkeypatch):
    as_process(monkeypatch, "0", "2")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(cli, ["fit", "--quiet", "--epochs", "1"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: process 0 of 2 does not reach the others (Error initializing torch.")
    assert result.stderr.count("\n") == 1


def test_other_commands_refuse_several_processes(monkeypatch):
    as_process(monkeypatch, "0", "2")
    result = CliRunner().invoke(cli, ["inspect"])
    assert result.exit_code == 2
    assert result.stderr == (
        "error: cli inspect works in one process, and WORLD_SIZE=2 says that several work together; leave torchrun "
        "out, or unset it\n"
    )
    result = CliRunner().invoke(cli, ["fit", "--dry-run"])
    assert (result.exit_code, result.stderr) == (2, "error: --dry-run measures one process; leave torchrun out\n")
    as_process(monkeypatch, "1", "2")
    result = CliRunner().invoke(cli, ["inspect"])
    assert (result.exit_code, result.stderr) == (2, "")  # the first one speaks
