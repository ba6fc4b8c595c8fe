"""What a fit would take: one real step and one block of the evaluation, measured in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from mbgraph import limits
from mbgraph.config import FitConfig
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import DataError, MbgraphError, RunError, UsageError
from mbgraph.evaluation.evaluate import evaluate
from mbgraph.evaluation.ranking import block_rows
from mbgraph.machine import available_memory_mb, peak_memory_mb
from mbgraph.run.fitting import use_threads
from mbgraph.run.preparation import make_model, make_trainer, notices, prepare_dataset, settled
from mbgraph.training.callbacks import Callback
from mbgraph.training.trainer import Trainer

__all__ = ["measure", "plan"]

_CHILD = "from mbgraph.run.forecast import main; main()"
_REMEDY = "lower batch_size or embedding_dim, or use --set row_dtype=bfloat16 where the model has it"


def plan(
    config: FitConfig,
    announce: Callable[[FitConfig], None] = lambda config: None,
    warn: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Check a configuration and say what it would take, without training or writing anything.

    The data are loaded, the model is built, and one training step and one block of the evaluation are taken, in a
    process of their own. A model of one's own must be found there: registered through an entry point.

    Parameters
    ----------
    config : FitConfig
    announce, warn
        See `mbgraph.run.fit`.

    Returns
    -------
    dict
        ``parameters``; ``steps_per_epoch``; ``evaluation_block``, the users scored at a time; ``memory``, MiB by what
        made the peak grow so far, ``memory_mb``, their sum, and ``available_mb``, what the machine can still give;
        ``device_mb``, the peak on the card where there is one, else None; ``notices``.

    Raises
    ------
    UsageError, DataError, RunError
        What a fit would raise; `RunError` also if the process dies, as it does where memory ends.
    """
    available = available_memory_mb()
    environment = {
        **os.environ,
        **limits.environment(),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=json.dumps(config.plain()),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    stage, answer = "starting", None
    for line in done.stdout.splitlines():
        told = json.loads(line)
        stage, answer = told.get("stage", stage), told.get("answer", answer)
        if "error" in told:
            raise _ERRORS[told["error"]](told["message"], told["remedy"])
    if answer is None:
        what = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        last = (done.stderr.strip().splitlines() or [""])[-1][:200]
        if done.returncode in (-9, 137) or "memory" in last.lower():
            raise RunError(f"{stage} does not fit into memory: the process that tried it was ended ({what})", _REMEDY)
        raise RunError(f"{stage} ended the process that tried it ({what}): {last}", "see mbgraph doctor")
    resolved = FitConfig.from_dict(answer.pop("config"))
    announce(resolved)
    for line in answer["notices"]:
        warn(line)
    return {**answer, "available_mb": round(available, 1)}


_ERRORS: dict[str, type[MbgraphError]] = {
    "UsageError": UsageError,
    "DataError": DataError,
    "RunError": RunError,
}


def main() -> None:
    """Measure the configuration on standard input and tell, in a line each, where it stands and what came of it."""
    told = sys.stdout

    def tell(**values: Any) -> None:
        told.write(json.dumps(values) + "\n")
        told.flush()  # whoever is killed has said what it was at

    try:
        for entry in measure(FitConfig.from_dict(json.loads(sys.stdin.read()))):
            tell(**entry)
    except MbgraphError as error:
        kind = next(name for name, known in _ERRORS.items() if isinstance(error, known))
        tell(error=kind, message=error.message, remedy=error.remedy)


def measure(config: FitConfig) -> Iterator[dict[str, Any]]:
    """Yield ``{"stage": ..}`` before each stage and ``{"answer": ..}`` at the end; meant for a process of its own."""
    memory: dict[str, float] = {}

    def grown(part: str) -> None:
        memory[part] = peak_memory_mb() - sum(memory.values())

    use_threads(config.threads)
    grown("imports")
    yield {"stage": "loading the data"}
    whole = prepare_dataset(config)
    dataset = _few_held_out(whole)
    grown("data")
    yield {"stage": "building the model"}
    model = make_model(config, dataset)
    config, decided = settled(config, model, dataset)
    config = config.resolve(dataset.num_items)
    steps, best = 0, {}
    try:
        if model.trainable:
            trainer = make_trainer(config, model, dataset, [_OneStep()])
            steps = trainer.steps_per_epoch
            grown("model")
            yield {"stage": "a training step"}
            _one_step(trainer)
            best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            grown("training step")
        elif model.learns:
            grown("model")
            yield {"stage": "learning"}
            model.learn(whole)
            grown("learning")
        else:
            grown("model")
        yield {"stage": "a block of the evaluation"}
        split = "valid" if len(dataset.valid) else "test"
        if len(dataset.splits.get(split, ())):
            model.eval()
            chosen = config.evaluation_options
            evaluate(model, dataset, split, k=chosen.k, mask=chosen.mask, ties=chosen.ties)
        grown("evaluation")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error).lower():  # torch has no error of its own on CPU
            raise RunError("a training step or its evaluation does not fit into memory", _REMEDY) from error
        raise
    on_card = torch.cuda.is_available() and torch.cuda.max_memory_allocated() / 2**20
    del best
    yield {
        "answer": {
            "dataset": dataset.name,
            "model": config.model,
            "variant": config.variant,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "steps_per_epoch": steps,
            "evaluation_block": block_rows(dataset.num_items),
            "memory": {part: round(size, 1) for part, size in memory.items()},
            "memory_mb": round(sum(memory.values()), 1),
            "device_mb": round(on_card, 1) if on_card else None,
            "notices": [*decided, *notices(config, dataset)],
            "config": config.plain(),
        }
    }


def _few_held_out(dataset: MultiBehaviorDataset) -> MultiBehaviorDataset:
    """Return the data with held-out pairs of one block of users only."""
    splits = {}
    for split, pairs in dataset.splits.items():
        users = np.unique(pairs.user)[: block_rows(dataset.num_items)]
        splits[split] = pairs[np.isin(pairs.user, users)]
    return dataset.replace(splits=splits)


class _Enough(Exception):
    """A step has been taken."""


class _OneStep(Callback):
    def on_step_end(self, trainer: Trainer, step: int, terms: dict[str, float]) -> None:
        raise _Enough


def _one_step(trainer: Trainer) -> None:
    try:
        trainer.train_epoch(1)  # with the diagnosis of the first batch, where there is one
    except _Enough:
        return
