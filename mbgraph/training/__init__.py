"""Training: trainer, callbacks, checkpoints."""

from mbgraph.training.callbacks import Callback, EarlyStopping
from mbgraph.training.trainer import FitResult, Trainer

__all__ = ["Callback", "EarlyStopping", "FitResult", "Trainer"]
