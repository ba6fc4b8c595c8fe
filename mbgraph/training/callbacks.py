"""Hooks into the trainer, and the one that decides when to stop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mbgraph.errors import UsageError

if TYPE_CHECKING:
    from mbgraph.training.trainer import Trainer

__all__ = ["Callback", "EarlyStopping"]


class Callback:
    """Override the hooks you need; each gets the trainer."""

    def on_train_begin(self, trainer: Trainer) -> None:
        """Run before the first (or first resumed) epoch."""

    def on_step_end(self, trainer: Trainer, step: int, terms: dict[str, float]) -> None:
        """Run after every optimizer step; ``terms`` are the weighted terms and ``total``."""

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Run after every epoch with the line that goes to ``metrics.jsonl``."""

    def on_train_end(self, trainer: Trainer) -> None:
        """Run once training is over, by whatever cause."""


class EarlyStopping:
    """Stop when ``epoch - best_epoch > patience``; better means strictly larger.

    Parameters
    ----------
    patience : int
        Epochs to wait. The published RMBRec code waits 20.
    """

    def __init__(self, patience: int) -> None:
        if patience < 0:
            raise UsageError(f"patience must not be negative, got {patience}")
        self.patience = patience
        self.best_epoch, self.best_value = 0, -math.inf

    def update(self, epoch: int, value: float) -> bool:
        """Take one epoch's value; return whether it is the best so far."""
        if value > self.best_value:
            self.best_epoch, self.best_value = epoch, value
            return True
        return False

    def should_stop(self, epoch: int) -> bool:
        """Return whether to stop after ``epoch``."""
        return epoch - self.best_epoch > self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"best_epoch": self.best_epoch, "best_value": self.best_value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.best_epoch, self.best_value = int(state["best_epoch"]), float(state["best_value"])
