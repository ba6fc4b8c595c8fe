"""Train, evaluate and write a run; continue or extend one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mbgraph import manifest, processes
from mbgraph.config import FitConfig
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import UsageError
from mbgraph.evaluation.evaluate import EvaluationResult, evaluate_splits
from mbgraph.files import reading
from mbgraph.machine import peak_memory_mb
from mbgraph.models.base import Recommender
from mbgraph.run.directory import (
    PER_USER,
    Run,
    make_directory,
    write_config,
    write_extension,
    write_facts,
    write_outcome,
    writing,
)
from mbgraph.run.preparation import make_model, make_trainer, notices, prepare_dataset, settled
from mbgraph.training.callbacks import Callback, EarlyStopping
from mbgraph.training.checkpoint import CHECKPOINT, load_checkpoint, save_weights

__all__ = ["fit", "resume"]


def _silent(_: Any) -> None:
    pass


def fit(
    config: FitConfig,
    directory: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callback] = (),
    announce: Callable[[FitConfig], None] = _silent,
    warn: Callable[[str], None] = _silent,
) -> dict[str, Any]:
    """Train, evaluate and write a run directory.

    Parameters
    ----------
    config : FitConfig
    directory : path, optional
        Must not exist or be empty. By default ``runs/<dataset>-<model>[-<variant>]-s<seed>``, numbered when taken.
    callbacks : sequence of Callback
    announce : callable
        Is given the resolved configuration before anything is trained.
    warn : callable
        Is given each notice, one line: the card or the batch that ``auto`` took, a validation split unlike the test
        split.

    Returns
    -------
    dict
        What ``mbgraph fit --json`` prints; ``notices`` has the lines that ``warn`` was given. Of several processes (see
        `mbgraph.processes`) the first one writes, and alone has ``details``.
    """
    use_threads(config.threads)
    dataset = prepare_dataset(config)
    model = make_model(config, dataset)
    config, chosen = settled(config, model, dataset)
    config = config.resolve(dataset.num_items)
    announce(config)
    told = _told([*chosen, *notices(config, dataset)], warn)
    path = Path(processes.first(lambda: str(make_directory(config, dataset, directory))))

    def write() -> None:
        make_directory(config, dataset, path)  # somebody may have been here before the lock was
        write_facts(path, config, dataset, chosen)
        write_config(path, config)

    with writing(path):
        processes.first(write)
        return _execute(config, path, dataset, model, callbacks, told, resumed=False)


def resume(
    directory: str | os.PathLike[str],
    callbacks: Sequence[Callback] = (),
    threads: int = 0,
    *,
    epochs: int | None = None,
    patience: int | None = None,
    warn: Callable[[str], None] = _silent,
) -> dict[str, Any]:
    """Continue a killed, interrupted or finished run to the numbers it would have reached in one go.

    Parameters
    ----------
    directory : path
        A run directory.
    callbacks, warn
        See `fit`.
    threads : int
        CPU threads; 0 takes the run's.
    epochs, patience : int, optional
        Go on as if the run had been started with these. ``config.toml`` is rewritten.

    Raises
    ------
    RunError
        If there is no run that could be continued.
    UsageError
        For numbers with which the run would have ended earlier than it is now.
    """
    run = Run.load(directory)
    config = run.config
    use_threads(threads or config.threads)
    asked = {"epochs": epochs, "patience": patience}
    changes = {name: value for name, value in asked.items() if value is not None}
    told: list[str] = []
    with writing(run.path):
        dataset = run.dataset()
        if changes:
            config = config.replace(training={**config.training, **changes})
            told = _told(processes.first(lambda: _extend(run, config, changes)), warn)
        return _execute(config, run.path, dataset, make_model(config, dataset), callbacks, told, resumed=True)


def use_threads(threads: int) -> None:
    """Set the number of CPU threads; 0 leaves torch's choice."""
    if threads:
        torch.set_num_threads(threads)


def _told(lines: Sequence[str], warn: Callable[[str], None]) -> list[str]:
    for line in lines:
        warn(line)
    return list(lines)


def _extend(run: Run, config: FitConfig, changes: dict[str, int]) -> list[str]:
    """Check that the run can go on with other limits, and write them down; return what to tell."""
    records: list[dict[str, Any]] = []
    if (run.path / CHECKPOINT).exists():
        with reading(run.path / CHECKPOINT, "restore it, or fit the model again"):
            records = json.loads(load_checkpoint(run.path / CHECKPOINT)["records"])
    limits, done = config.training_options, len(records)
    if limits.epochs < done:
        raise UsageError(
            f"{run.path} has trained {done} epochs, more than {limits.epochs}",
            f"ask for more than {done}, or fit again",
        )
    stopping = EarlyStopping(limits.patience)
    for record in records:
        if not record.get("valid"):
            if "patience" in changes:
                raise UsageError(
                    f"{run.path} has no validation pairs, so patience changes nothing", "leave --patience out"
                )
            break
        if stopping.should_stop(record["epoch"] - 1):
            raise UsageError(
                f"with patience {limits.patience} {run.path} would have ended after epoch {record['epoch'] - 1}, "
                f"and it has trained {done}",
                "choose a larger one, or fit again",
            )
        stopping.update(record["epoch"], record["valid"][config.evaluation["metric"]])
    write_extension(run.path, config)
    if done and done < limits.epochs and records[-1].get("valid") and stopping.should_stop(done):
        return [
            f"no epoch is left to train: after epoch {done} the last better one, {stopping.best_epoch}, is more than "
            f"patience {limits.patience} ago; a larger --patience goes on"
        ]
    if done < limits.epochs:  # what was reported is no longer the end
        for name in ("test.json", *PER_USER.values()):
            (run.path / name).unlink(missing_ok=True)
    return []


def _execute(
    config: FitConfig,
    path: Path,
    dataset: MultiBehaviorDataset,
    model: Recommender,
    callbacks: Sequence[Callback],
    told: Sequence[str],
    resumed: bool,
) -> dict[str, Any]:
    if processes.count() > 1:
        processes.check_same("data", dataset.content_hash())
    evaluation = config.evaluation_options
    outcome: dict[str, Any] = {
        "run": str(path),
        "dataset": dataset.name,
        "model": config.model,
        "variant": config.variant,
        "seed": config.seed,
        "epochs": 0,
        "best_epoch": 0,
        "seconds_per_epoch": 0.0,
        "interrupted": False,
        "notices": list(told),
    }
    if model.trainable:
        trainer = make_trainer(config, model, dataset, callbacks, path)
        result = trainer.fit(resume=resumed and (path / CHECKPOINT).exists())
        outcome.update(
            epochs=result.epochs,
            best_epoch=result.best_epoch,
            seconds_per_epoch=result.seconds_per_epoch,
            interrupted=result.interrupted,
        )
    elif model.learns:
        start = time.perf_counter()
        outcome["learned"] = model.learn(dataset)
        if processes.is_first():
            save_weights(path, model.state_dict())
        outcome.update(epochs=1, best_epoch=1, seconds_per_epoch=time.perf_counter() - start)
    results: dict[str, EvaluationResult] = {}
    if not outcome["interrupted"]:
        model.eval()
        splits = tuple(split for split in ("valid", "test") if len(dataset.splits.get(split, ())))
        if splits:
            results = evaluate_splits(
                model, dataset, splits=splits, k=evaluation.k, mask=evaluation.mask, ties=evaluation.ties
            )
    outcome["peak_memory_mb"] = peak_memory_mb()
    for split in ("valid", "test"):
        outcome[split] = results[split].metrics if split in results else {}
    outcome["users_evaluated"] = results["test"].users_evaluated if "test" in results else 0
    if not outcome["interrupted"] and processes.is_first():
        details = {split: result.to_dict() for split, result in results.items()}
        written = [name for split, name in PER_USER.items() if split in results]
        for split, name in PER_USER.items():
            if split in results:
                results[split].save_per_user(path / name)
        manifest.note(path, written)
        write_outcome(path, {**outcome, "details": details})
        outcome["details"] = details
    return outcome
