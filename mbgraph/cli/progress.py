"""Training progress: a bar with rate and remaining time on a terminal, plain lines in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from mbgraph.cli.consoles import PlainConsole, TextColumn
from mbgraph.training.callbacks import Callback

if TYPE_CHECKING:
    from mbgraph.training.trainer import Trainer

__all__ = ["TrainingProgress"]


class TrainingProgress(Callback):
    """Shows epochs as they end.

    Parameters
    ----------
    console : PlainConsole
        Where to; a terminal gets a bar, anything else a line every ``every`` epochs.
    every : int
    """

    def __init__(self, console: PlainConsole, every: int = 10) -> None:
        self.console, self.every = console, every
        self._bar: Progress | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """Show the resolved objective and open the bar."""
        terms = ", ".join(f"{entry.term} x {entry.weight:g}" for entry in trainer.regularizers) or "none"
        training = trainer.training
        self.console.print(
            f"training {trainer.model.name} on {trainer.device}: up to {training.epochs} epochs of "
            f"{trainer.steps_per_epoch} steps, lr {training.lr:g}, weight decay {training.weight_decay:g}, "
            f"regularizers: {terms}",
        )
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("epoch"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
                transient=True,
            )
            self._bar.add_task("fit", total=training.epochs, completed=trainer.epoch, note="", speed="")
            self._bar.start()

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Advance the bar, or print a line."""
        seconds = sum(record["seconds"].values())
        value = record.get("valid", {}).get(trainer.metric)
        note = f"loss {record['terms']['total']:.4f}"
        if value is not None:
            best = f"best {trainer.stopping.best_value:.4f} at {record['best_epoch']}"
            note += f", valid {trainer.metric} {value:.4f} ({best})"
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=record["epoch"], note=note, speed=f"{seconds:.2f} s/epoch"
            )
        elif record["epoch"] == 1 or record["epoch"] % self.every == 0:
            self.console.print(f"epoch {record['epoch']}: {note}, {seconds:.2f} s")

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
