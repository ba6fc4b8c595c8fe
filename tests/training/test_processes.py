"""What several processes must come to: the same numbers as one, and the same numbers after a kill."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
import torch

from mbgraph.models import MODELS, StepContext
from mbgraph.testing.recommenders import toy_dataset
from mbgraph.training import Trainer

TRAINED = [name for name in MODELS if MODELS.get(name).trainable and name != "mbssl"]
"""MBSSL's rule derives every term on its own, past the hooks by which processes share gradients."""

DISTRIBUTED = """
    import json, os, sys, torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from mbgraph.models import MODELS, StepContext
    from mbgraph.testing.recommenders import toy_dataset

    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=int(sys.argv[1]), world_size=2)
    made = {}
    for name in sys.argv[2:]:
        ds = toy_dataset()
        model = MODELS.get(name)(ds.graph, ds.target, embedding_dim=8, rng=1)
        rule = model.update_rule(model.options.training())
        model.prepare(ds)
        model.begin_epoch(StepContext(1, 0, 3))
        wrapped = DistributedDataParallel(model)
        batches = list(model.batches(ds, model.options.training().replace(batch_size=6), 3).epoch(1))
        for step in range(2):  # each process its own batch
            own = batches[2 * step + dist.get_rank()]
            rule.step(wrapped(own, StepContext(1, step, 3)).losses)
        made[name] = [parameter.detach().tolist() for parameter in model.parameters()]
    if dist.get_rank() == 0:
        print(json.dumps(made))
    dist.destroy_process_group()
"""


def run(code, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def test_two_processes_with_half_a_batch_each_take_the_step_of_one():
    """DistributedDataParallel averages gradients: two updates equal those of one process on the mean of both losses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [run(DISTRIBUTED, rank, *TRAINED, env=env) for rank in range(2)]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    made = json.loads(outputs[0][0])
    assert set(made) == set(TRAINED)
    for name in TRAINED:
        ds = toy_dataset()
        model = MODELS.get(name)(ds.graph, ds.target, embedding_dim=8, rng=1)
        rule = model.update_rule(model.options.training())
        model.prepare(ds)
        model.begin_epoch(StepContext(1, 0, 3))
        batches = list(model.batches(ds, model.options.training().replace(batch_size=6), 3).epoch(1))
        for step in range(2):
            halves = [model(batches[2 * step + rank], StepContext(1, step, 3)).losses for rank in range(2)]
            rule.step({f"{term} {rank}": value / 2 for rank, part in enumerate(halves) for term, value in part.items()})
        for mine, other in zip(model.parameters(), made[name], strict=True):
            torch.testing.assert_close(mine.detach(), torch.tensor(other), rtol=1e-4, atol=1e-6)


KILLED = """
    import os, signal, sys
    from mbgraph.models import MODELS
    from mbgraph.testing.recommenders import toy_dataset
    from mbgraph.training import Callback, Trainer

    name, folder, epoch, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

    class Kill(Callback):
        def on_step_end(self, trainer, number, terms):
            if trainer.epoch + 1 == epoch and number == step:
                os.kill(os.getpid(), signal.SIGKILL)

    ds = toy_dataset()
    model = MODELS.get(name)(ds.graph, ds.target, embedding_dim=8, rng=1)
    Trainer(model, ds, rng=3, epochs=4, batch_size=7, device="cpu", directory=folder, callbacks=[Kill()]).fit()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("name", ["simgcl", pytest.param("rmbrec", marks=pytest.mark.slow)])
def test_a_killed_run_resumes_to_the_same_numbers(name, tmp_path):
    """SIGKILL in the middle of the third epoch, a new process, and every number of an uninterrupted run."""

    def trainer(directory=None):
        ds = toy_dataset()
        model = MODELS.get(name)(ds.graph, ds.target, embedding_dim=8, rng=1)
        return Trainer(model, ds, rng=3, epochs=4, batch_size=7, device="cpu", directory=directory)

    process = run(KILLED, name, tmp_path, 3, 1)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    resumed, whole = trainer(tmp_path), trainer()
    resumed.fit(resume=True)
    whole.fit()
    assert [record["terms"] for record in resumed.records] == [record["terms"] for record in whole.records]
    assert [record["valid"] for record in resumed.records] == [record["valid"] for record in whole.records]
    for one, two in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, two)
