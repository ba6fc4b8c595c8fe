"""Searching for options by validation alone: the test pairs are taken out before anything is trained."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from mbgraph.bench.identity import digest
from mbgraph.bench.perform import Deadline
from mbgraph.bench.space import Range, SearchSpace
from mbgraph.config import FitConfig
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import MbgraphError, UsageError
from mbgraph.files import atomic_write, check_folder, read_json, write_json
from mbgraph.locks import claimed
from mbgraph.run.fitting import use_threads
from mbgraph.run.preparation import make_model, make_trainer, prepare_dataset
from mbgraph.training.callbacks import Callback
from mbgraph.training.trainer import Trainer

__all__ = ["Trial", "tune"]

_SPACE = "space.json"


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes
    ----------
    number : int
    values : mapping of str to value
        By option.
    status : str
        ``done``, ``pruned`` or ``failed``.
    value : float or None
        Best validation metric.
    epochs, best_epoch : int
    seconds : float
    error : str
    """

    number: int
    values: Mapping[str, Any]
    status: str
    value: float | None = None
    epochs: int = 0
    best_epoch: int = 0
    seconds: float = 0.0
    error: str = ""


class Pruned(Exception):
    """A trial that fell behind the others."""


def tune(
    space: SearchSpace,
    folder: str | os.PathLike[str],
    *,
    budget: float | None = None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> tuple[list[Trial], bool]:
    """Run the trials of a search space that its folder does not have yet.

    Writes ``trials/NUMBER.json``, ``best.toml`` (a configuration for ``mbgraph fit --config``), and with Optuna its
    study ``optuna.db``.

    Parameters
    ----------
    space : SearchSpace
    folder : path
        A search that was interrupted goes on there; one of another space is refused.
    budget : float, optional
        Seconds after which no epoch begins.
    on_trial : callable
        Is told each trial that ends.

    Returns
    -------
    trials : list of Trial
        All finished ones, the best first.
    interrupted : bool
        Whether Ctrl-C or the budget ended it early.

    Raises
    ------
    UsageError
        If the folder is another search's, the model is not trained, or there is no validation or no Optuna.
    RunError
        If another search is at work in the folder.
    """
    base = FitConfig.from_dict(space.base)
    if not base.model_class.trainable:
        raise UsageError(f"model {base.model!r} is not trained", "there is nothing to search")
    folder = Path(folder)
    use_threads(base.threads)
    dataset = prepare_dataset(base)
    if not len(dataset.valid):
        raise UsageError(f"{dataset.name!r} has no validation pairs", "set validation = 'holdout' in base")
    # what is not there cannot be read
    dataset = dataset.replace(splits={"valid": dataset.valid})
    if not (folder / _SPACE).is_file():
        check_folder(folder, remedy="choose another --out")
    moment = float("inf") if budget is None else time.time() + budget
    with claimed(folder / "search.lock", folder):
        _claim(folder, space, dataset)
        search = _with_optuna if space.sampler == "optuna" else _by_number
        interrupted = search(space, dataset, folder, moment, on_trial)
    trials = read_trials(folder)
    if trials and trials[0].value is not None:
        with atomic_write(folder / "best.toml") as file:
            tomli_w.dump(space.config(trials[0].values).plain(), file)
    return trials, interrupted


def read_trials(folder: Path) -> list[Trial]:
    """Return the trials of a folder, the best first, those without a value last."""
    found = [Trial(**read_json(file)) for file in sorted((folder / "trials").glob("*.json"))]
    return sorted(found, key=lambda trial: (trial.value is None, -(trial.value or 0.0), trial.number))


def _claim(folder: Path, space: SearchSpace, dataset: MultiBehaviorDataset) -> None:
    """Check that a folder holds this search, or write down that it does; the number of trials may grow."""
    plain = space.plain()
    axes = {name: axis.plain() if isinstance(axis, Range) else list(axis) for name, axis in space.axes.items()}
    told = {**plain, "axes": axes, "trials": None, "data": dataset.content_hash()}
    file = folder / _SPACE
    if file.is_file():
        if read_json(file).get("digest") != digest(told):
            raise UsageError(f"{folder} holds a search of another space or other data", "choose another --out")
    else:
        write_json(file, {"digest": digest(told), "space": told})


def _by_number(
    space: SearchSpace, dataset: MultiBehaviorDataset, folder: Path, moment: float, on_trial: Callable[[Trial], None]
) -> bool:
    for number in range(space.size):
        if (folder / "trials" / f"{number:05d}.json").is_file():
            continue
        if time.time() >= moment:
            return True
        trial = _run(space, number, space.point(number), dataset, [], moment)
        if trial is None:
            return True
        _keep(folder, trial, on_trial)
    return False


def _with_optuna(
    space: SearchSpace, dataset: MultiBehaviorDataset, folder: Path, moment: float, on_trial: Callable[[Trial], None]
) -> bool:
    if importlib.util.find_spec("optuna") is None:
        raise UsageError('sampler = "optuna" needs optuna', 'install it with: pip install "mbgraph[tune]"')
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="mbgraph",
        storage=f"sqlite:///{(folder / 'optuna.db').resolve()}",
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=space.seed + len(list((folder / "trials").glob("*.json")))),
        pruner=optuna.pruners.MedianPruner(),
    )
    states = optuna.trial.TrialState
    for left in study.get_trials(states=(states.RUNNING,)):  # of a search that was killed
        study.tell(left.number, state=states.FAIL)
    ended = (states.COMPLETE, states.PRUNED)
    while len(read_trials(folder)) < space.trials:
        if time.time() >= moment:
            return True
        asked = study.ask()
        values = {name: _suggested(asked, name, axis) for name, axis in space.axes.items()}
        trial = _run(space, asked.number, values, dataset, [_Pruner(asked)], moment)
        if trial is None:
            study.tell(asked, state=states.FAIL)
            return True
        state = {"done": states.COMPLETE, "pruned": states.PRUNED}.get(trial.status, states.FAIL)
        study.tell(asked, trial.value if state is ended[0] else None, state=state)
        _keep(folder, trial, on_trial)
    return False


def _suggested(asked: Any, name: str, axis: Any) -> Any:
    if isinstance(axis, Range):
        suggest = asked.suggest_int if axis.integer else asked.suggest_float
        return suggest(name, axis.low, axis.high, log=axis.log)
    return axis[asked.suggest_categorical(name, range(len(axis)))]


class _Pruner(Callback):
    """Tells Optuna every epoch's metric, and ends a trial that it gives up."""

    def __init__(self, asked: Any) -> None:
        self.asked = asked

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        self.asked.report(record["valid"][trainer.metric], record["epoch"])
        if self.asked.should_prune():
            raise Pruned


def _run(
    space: SearchSpace,
    number: int,
    values: dict[str, Any],
    dataset: MultiBehaviorDataset,
    callbacks: list[Callback],
    moment: float,
) -> Trial | None:
    """Train one trial; None if Ctrl-C or the budget ended it."""
    start = time.perf_counter()
    trainer = None
    try:
        config = space.config(values)
        trainer = make_trainer(config, make_model(config, dataset), dataset, [*callbacks, Deadline(moment)])
        if trainer.fit().interrupted:
            return None
        status, error = "done", ""
    except Pruned:
        status, error = "pruned", ""
    except KeyboardInterrupt:
        return None
    except MbgraphError as failure:
        return Trial(number, values, "failed", seconds=time.perf_counter() - start, error=str(failure))
    assert trainer is not None
    best = trainer.stopping
    seconds = time.perf_counter() - start
    return Trial(number, values, status, best.best_value, trainer.epoch, best.best_epoch, seconds, error)


def _keep(folder: Path, trial: Trial, on_trial: Callable[[Trial], None]) -> None:
    write_json(folder / "trials" / f"{trial.number:05d}.json", dict(vars(trial)))
    on_trial(trial)
