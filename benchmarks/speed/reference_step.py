"""The reference's half of `references.py`: run a published program as it is, and measure its training steps.

    python reference_step.py --patches cpu,scipy --threads 2 PROGRAM.py -- arguments of the program

No line of a program is changed. What tells one step from the next are torch's own hooks: a step ends when Adam has
stepped, and its batch is there when the first module is called. Between two turns the program waits in such a hook for
a line with a number of steps; an empty one ends it. Every step becomes a line of JSON.
"""

from __future__ import annotations

import argparse
import builtins
import itertools
import json
import os
import runpy
import sys
import time
import types
from importlib.machinery import ModuleSpec
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook


class Meter:
    """Measures the steps of whatever trains in this process, in turns with another process."""

    def __init__(self, channel: Any) -> None:
        self.channel, self.left = channel, 0
        self.started: tuple[float, float] | None = None
        self.drawn: float | None = None
        self.loss = 0.0
        self.beside = 0.0  # CPU seconds of a sampler that draws an epoch at once

    def install(self) -> None:
        """Hook into modules, `Tensor.backward` and optimizers."""
        register_module_forward_pre_hook(self.called)
        register_optimizer_step_post_hook(self.stepped)
        backward = torch.Tensor.backward

        def counted(loss: torch.Tensor, *arguments: Any, **named: Any) -> None:
            self.loss += float(loss.detach())  # all losses of a step that are derived one by one are its loss
            backward(loss, *arguments, **named)

        torch.Tensor.backward = counted

    def say(self, **values: Any) -> None:
        self.channel.write(json.dumps(values) + "\n")
        self.channel.flush()

    def called(self, module: torch.nn.Module, inputs: Any) -> None:
        if self.drawn is None:
            self.drawn = time.process_time()

    def stepped(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not isinstance(optimizer, torch.optim.Adam):  # MBSSL's balance of gradients is an optimizer too
            return
        cpu, wall = time.process_time(), time.perf_counter()
        if self.started is None:
            numbers = sum(entry.numel() for group in optimizer.param_groups for entry in group["params"])
            self.say(parameters=numbers, threads=torch.get_num_threads(), torch=torch.__version__)
        else:
            drawn = None if self.drawn is None else self.drawn - self.started[0]
            took = {"cpu": cpu - self.started[0], "wall": wall - self.started[1], "draw": drawn}
            self.say(**took, loss=self.loss, sampler=self.beside)
        if not self.left:
            self.left = int(sys.stdin.readline().strip() or 0)
            if not self.left:
                os._exit(0)  # wherever the program is
        self.left -= 1
        self.drawn, self.loss = None, 0.0
        self.started = time.process_time(), time.perf_counter()

    def beside_steps(self, function: Any) -> Any:
        """Return the function, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                self.beside = time.process_time() - start

        return timed


def stand_in(name: str, **entries: Any) -> None:
    """Put a module in the place of one that is not installed, and that no training step calls."""
    try:
        __import__(name)
    except ImportError:
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__getattr__ = lambda _: mock.MagicMock()
        vars(module).update(entries)
        sys.modules[name] = module


def patch(names: list[str]) -> None:
    """Make programs of their day run on today's packages and on a CPU; `references.py` says which needs what."""
    logger = mock.MagicMock()
    logger.catch = lambda *_, **__: lambda function: function
    stand_in("loguru", logger=logger)
    for name in ("torch.utils.tensorboard", "tensorboardX", "sklearn", "sklearn.metrics"):
        stand_in(name)
    if "cpu" in names:
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self
    if "scipy" in names:
        from scipy import sparse

        class Filled(sparse.csr_matrix):
            """A matrix that is filled from a dictionary at once."""

            def _update(self, entries: dict[tuple[int, int], float]) -> None:
                places = np.fromiter(itertools.chain.from_iterable(entries), np.int64).reshape(-1, 2).T
                super().__init__((np.fromiter(entries.values(), float), tuple(places)), self.shape)

        sparse.dok_matrix = Filled
    if "scatter" in names:

        def scatter_add(source: torch.Tensor, index: torch.Tensor, dim: int, dim_size: int) -> torch.Tensor:
            return source.new_zeros(dim_size).scatter_add_(dim, index, source)

        stand_in("torch_scatter", scatter_add=scatter_add)
        stand_in("torch_sparse", SparseTensor=type("SparseTensor", (), {}))
    if "anomaly" in names:
        torch.autograd.set_detect_anomaly = lambda *_, **__: None
    if "yaml" in names:
        stand_in("yaml", safe_load=json.load, YAMLError=ValueError)
    if "lightning" in names:
        module = types.ModuleType("pytorch_lightning")
        module.LightningModule = torch.nn.Module
        sys.modules["pytorch_lightning"] = module


def answer(words: list[str]) -> None:
    """Answer what a program asks at the terminal."""
    replies = iter(words)
    builtins.input = lambda *_: next(replies)


def train_missl(arguments: list[str]) -> None:
    """Train MISSL by its own model, data set and `training_step`, in a plain loop instead of Lightning's."""
    from src.dataloaders.rec_dataloader import RecTrainDataset
    from src.model import RecModel
    from src.models import MISSL

    with np.load(arguments[0]) as file:
        pointers, items, kinds = (file[name] for name in ("pointers", "items", "types"))
        num_items, num_behaviors = int(file["num_items"]), int(file["num_behaviors"])
    users = [user for user, length in enumerate(np.diff(pointers)) if length > 1]
    sequences, behaviors = (
        {user: (column[pointers[user] : pointers[user + 1]] + 1).tolist() for user in users}
        for column in (items, kinds)
    )
    settings = {"max_len": 50, "d_model": 16, "n_head": 2, "n_layer": 2, "intent_num": 64, "hhgt_num_layer": 2}
    weights = {"epsilon": 0.6, "next_beh_lambda": 1.0, "weight": 1e-4, "dropout": 0.2}
    model = RecModel(MISSL(num_items=num_items, n_b=num_behaviors, **settings, **weights)).train()
    rows = RecTrainDataset(sequences, behaviors, 50, 0.7, num_items, num_behaviors, False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-6)
    while True:
        for number, batch in enumerate(torch.utils.data.DataLoader(rows, batch_size=128, shuffle=True)):
            optimizer.zero_grad()
            model.training_step(batch, number)["loss"].sum().backward()
            optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", help="its file, in the folder to run in; missl for a loop around MISSL's step")
    parser.add_argument("--patches", default="")
    parser.add_argument("--answers", default="", help="what to answer at the terminal")
    parser.add_argument("--sampler", default="", help="MODULE.FUNCTION that draws an epoch at once")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    rest = arguments.rest[1:] if arguments.rest[:1] == ["--"] else arguments.rest
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # programs print as they like
    torch.set_num_threads(arguments.threads)
    patch(arguments.patches.split(","))
    answer(arguments.answers.split(","))
    meter = Meter(channel)
    meter.install()
    sys.path.insert(0, os.getcwd())
    if arguments.program == "missl":
        train_missl(rest)
        return
    sys.argv = [arguments.program, *rest]
    if arguments.sampler:
        name, _, function = arguments.sampler.partition(".")
        module = __import__(name)
        setattr(module, function, meter.beside_steps(getattr(module, function)))
    runpy.run_path(arguments.program, run_name="__main__")


if __name__ == "__main__":
    main()
