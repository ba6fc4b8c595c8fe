"""What a training writes into ``metrics.jsonl``, also for TensorBoard, MLflow or Weights & Biases.

Each needs its library, an extra of the package, and reads that library's own settings from the environment
(``MLFLOW_TRACKING_URI``, ``WANDB_MODE``, ..); nothing here sends anything elsewhere unless those say so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.files import read_json, write_json
from mbgraph.training.callbacks import Callback

if TYPE_CHECKING:
    from mbgraph.training.trainer import Trainer

__all__ = ["LOGGERS", "Logger", "MLflow", "TensorBoard", "WandB", "make_logger", "scalars"]

_SECTIONS = ("terms", "gradient_norms", "valid", "seconds")
PROJECT = "mbgraph"


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a line of ``metrics.jsonl`` by name.

    ``@`` becomes ``_at_``, since MLflow knows no such letter in names.

    Examples
    --------
    >>> scalars({"epoch": 1, "terms": {"main": 0.5}, "valid": {"HR@10": 0.25}, "best_epoch": 1})
    {'terms/main': 0.5, 'valid/HR_at_10': 0.25}
    """
    return {
        f"{section}/{name}".replace("@", "_at_"): float(value)
        for section in _SECTIONS
        for name, value in record.get(section, {}).items()
    }


def settings(trainer: Trainer) -> dict[str, Any]:
    """Return what the training was told, as flat plain values."""
    found: dict[str, Any] = {"dataset": trainer.dataset.name, "model": trainer.model.name, "seed": trainer.rng}
    found |= {f"options.{name}": value for name, value in trainer.model.options.plain().items()}
    found |= {f"training.{name}": value for name, value in trainer.training.plain().items()}
    found |= {f"regularizers.{entry.term}.weight": entry.weight for entry in trainer.regularizers}
    return found


class Logger(Callback):
    """Base of the loggers: a class names its library, opens a log, and writes an epoch's figures into it."""

    name: ClassVar[str]
    library: ClassVar[str]

    def __init__(self) -> None:
        if importlib.util.find_spec(self.library) is None:
            raise UsageError(
                f"logging to {self.name} needs {self.library}", f'install it with: pip install "mbgraph[{self.name}]"'
            )

    @staticmethod
    def folder(trainer: Trainer) -> Path:
        """Return where the run lies; here where it has no directory."""
        return Path(".") if trainer.directory is None else trainer.directory

    def known_run(self, trainer: Trainer) -> str | None:
        """Return the run that an earlier part of this training was logged to, None for a new one."""
        file = self.folder(trainer) / f"{self.name}.json"
        return str(read_json(file)["run"]) if trainer.epoch and file.is_file() else None

    def remember_run(self, trainer: Trainer, run: str) -> None:
        """Write down which run this training is logged to, so that a resumed one goes on there."""
        write_json(self.folder(trainer) / f"{self.name}.json", {"run": run})


class TensorBoard(Logger):
    """Event files in ``tensorboard/`` of the run directory."""

    name = "tensorboard"
    library = "tensorboard"
    _writer: Any = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """Open the log; epochs that a killed run had logged and did not keep are purged."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self.folder(trainer) / "tensorboard"
        self._writer = SummaryWriter(str(folder), purge_step=trainer.epoch + 1 if trainer.epoch else None)
        lines = (f"    {name} = {value}" for name, value in settings(trainer).items())
        self._writer.add_text("configuration", "\n".join(lines), trainer.epoch)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Write an epoch."""
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, record["epoch"])

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the log."""
        self._writer.close()


class MLflow(Logger):
    """A run of the experiment ``mbgraph``, where ``MLFLOW_TRACKING_URI`` says or where MLflow itself puts it."""

    name = "mlflow"
    library = "mlflow"
    _client: Any = None
    _run = ""

    def on_train_begin(self, trainer: Trainer) -> None:
        """Open the run, or the one that a resumed training was logged to."""
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        known = self.known_run(trainer)
        if known is not None:
            self._run = known
            self._client.update_run(known, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(PROJECT)
        number = self._client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
        self._run = self._client.create_run(number, run_name=self.folder(trainer).resolve().name).info.run_id
        for name, value in settings(trainer).items():
            self._client.log_param(self._run, name, value)
        self.remember_run(trainer, self._run)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Write an epoch."""
        for name, value in scalars(record).items():
            self._client.log_metric(self._run, name, value, step=record["epoch"])

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the run."""
        self._client.set_terminated(self._run)


class WandB(Logger):
    """A run of the project ``mbgraph``; ``WANDB_MODE=offline`` keeps it in the run directory."""

    name = "wandb"
    library = "wandb"
    _run: Any = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """Open the run, or the one that a resumed training was logged to."""
        import wandb

        folder = self.folder(trainer)
        self._run = wandb.init(
            project=PROJECT,
            dir=str(folder),
            name=folder.resolve().name,
            id=self.known_run(trainer),
            resume="allow",
            config=settings(trainer),
        )
        self.remember_run(trainer, self._run.id)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Write an epoch."""
        self._run.log(scalars(record), step=record["epoch"])

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the run."""
        self._run.finish()


LOGGERS: dict[str, type[Logger]] = {kind.name: kind for kind in (TensorBoard, MLflow, WandB)}


def make_logger(name: str) -> Logger:
    """Return a logger.

    Raises
    ------
    UnknownNameError
        For an unknown name.
    UsageError
        If its library is not installed.
    """
    if name not in LOGGERS:
        raise UnknownNameError("logger", name, LOGGERS)
    return LOGGERS[name]()
