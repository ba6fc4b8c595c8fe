"""The training loop: sample, step, add regularizers, validate, remember the best, stop early."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import RunError, UsageError
from mbgraph.evaluation.evaluate import evaluate
from mbgraph.files import atomic_write
from mbgraph.models.base import Batch, Recommender
from mbgraph.regularizers.base import Regularizer
from mbgraph.training.callbacks import Callback, EarlyStopping
from mbgraph.training.checkpoint import load_checkpoint, save_checkpoint, save_weights
from mbgraph.training.interrupts import Interrupts
from mbgraph.training.sampler import TripleSampler

__all__ = ["FitResult", "Trainer", "resolve_device"]


def resolve_device(device: str) -> torch.device:
    """Return the device for ``"auto"`` (CUDA if there is one), ``"cpu"`` or ``"cuda"``."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {device!r}", "choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is available", "use --device cpu")
    return torch.device(device)


@dataclass
class FitResult:
    """What training came to.

    Attributes
    ----------
    epochs : int
        Epochs trained.
    best_epoch : int
        The epoch whose weights the model holds now.
    history : list of dict
        One record per epoch, as in ``metrics.jsonl``.
    seconds_per_epoch : float
        Median training time of an epoch, validation not included.
    interrupted : bool
        True if Ctrl-C ended it.
    """

    epochs: int
    best_epoch: int
    history: list[dict[str, Any]] = field(repr=False)
    seconds_per_epoch: float = 0.0
    interrupted: bool = False


class Trainer:
    """Trains a model on the train part of a dataset and selects on its validation part.

    The test part is never read: validation uses ``split="valid"`` only.

    Parameters
    ----------
    model : Recommender
        Model built on ``dataset.graph``.
    dataset : MultiBehaviorDataset
        Train edges and validation pairs. Without validation pairs training runs for exactly ``epochs`` epochs.
    regularizers : sequence of Regularizer, optional
        Terms beside the model's own losses; the model's published ones by default.
    epochs, patience, batch_size, lr, weight_decay, sampler, history
        See `TrainingDefaults`; None takes the model's.
    metric : str
        Validation metric to select on, for example ``"HR@10"``.
    mask, ties
        See `mbgraph.evaluate`.
    rng : int
        Seed of the sampler. The model has its own.
    device : {"auto", "cpu", "cuda"}
        Where to train.
    directory : path, optional
        Where to write ``metrics.jsonl``, ``checkpoint.pt`` and ``model.safetensors``; nothing is written without it.
    diagnose_every : int
        Every that many epochs record the gradient norm of each term on the first batch; 0 never.
    callbacks : sequence of Callback
    """

    def __init__(
        self,
        model: Recommender,
        dataset: MultiBehaviorDataset,
        regularizers: Sequence[Regularizer] | None = None,
        *,
        epochs: int | None = None,
        patience: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        sampler: str | None = None,
        history: str | None = None,
        metric: str = "HR@10",
        mask: str = "train-target",
        ties: str = "realistic",
        rng: int = 2026,
        device: str = "auto",
        directory: str | os.PathLike[str] | None = None,
        diagnose_every: int = 10,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        if not model.trainable:
            raise UsageError(f"model {model.name!r} is not trained", "evaluate it as it is")
        defaults = model.training_defaults
        self.epochs = defaults.epochs if epochs is None else epochs
        self.lr = defaults.lr if lr is None else lr
        self.weight_decay = defaults.weight_decay if weight_decay is None else weight_decay
        if self.epochs < 1:
            raise UsageError(f"epochs must be positive, got {self.epochs}")
        if not self.lr > 0:
            raise UsageError(f"lr must be positive, got {self.lr}")
        self.device = resolve_device(device)
        self.model = model.to(self.device)
        self.dataset = dataset
        chosen = model.default_regularizers() if regularizers is None else list(regularizers)
        self.regularizers = [regularizer for regularizer in chosen if regularizer.weight > 0]
        names = [regularizer.name for regularizer in self.regularizers]
        if len(set(names)) != len(names):
            raise UsageError(f"two regularizers share a name: {', '.join(names)}", "attach each once")
        self.double_backward = any(regularizer.double_backward for regularizer in self.regularizers)
        self.sampler = TripleSampler(
            dataset,
            tuple(getattr(model, "behaviors", dataset.behaviors)),
            batch_size=defaults.batch_size if batch_size is None else batch_size,
            mode=defaults.sampler if sampler is None else sampler,
            history=defaults.history if history is None else history,
            rng=rng,
        )
        self.metric, self.mask, self.ties = metric, mask, ties
        self.k = int(metric.partition("@")[2]) if "@" in metric and metric.partition("@")[2].isdigit() else 0
        if self.k < 1:
            raise UsageError(f"metric {metric!r} has no cut-off", "write it as HR@10 or NDCG@20")
        self.stopping = EarlyStopping(defaults.patience if patience is None else patience)
        self.rng = int(rng)
        self.directory = None if directory is None else Path(directory)
        self.diagnose_every = diagnose_every
        self.callbacks = list(callbacks)
        self.history: list[dict[str, Any]] = []
        self.epoch = 0
        # fused Adam is one pass over each table instead of a dozen; torch gained it for CPU in 2.4
        fused = self.device.type == "cuda" or _has_fused_cpu_adam()
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=fused or None
        )
        self._best: dict[str, Tensor] = {}
        self._interrupts = Interrupts()

    @property
    def has_validation(self) -> bool:
        """Whether there are pairs to select on."""
        return len(self.dataset.valid) > 0

    def fit(self, *, resume: bool = False) -> FitResult:
        """Train until the last epoch, early stopping or Ctrl-C; the model ends with the best epoch's weights.

        Parameters
        ----------
        resume : bool
            Continue from ``directory/checkpoint.pt``.

        Raises
        ------
        RunError
            If a term becomes NaN or infinite. The message names the term; the last checkpoint stays.
        """
        if resume:
            self._load()
        self._notify("on_train_begin")
        interrupted = False
        with self._interrupts:
            try:
                while self.epoch < self.epochs and not (self.has_validation and self.stopping.should_stop(self.epoch)):
                    self._run_epoch(self.epoch + 1)
                    self._interrupts.check()
            except KeyboardInterrupt:
                interrupted = True
        if self._best:
            self.model.load_state_dict(self._best)
        self._notify("on_train_end")
        seconds = sorted(record["seconds"]["train"] for record in self.history)
        return FitResult(
            epochs=len(self.history),
            best_epoch=self.stopping.best_epoch if self.has_validation else len(self.history),
            history=self.history,
            seconds_per_epoch=seconds[len(seconds) // 2] if seconds else 0.0,
            interrupted=interrupted,
        )

    def _run_epoch(self, epoch: int) -> None:
        start = time.perf_counter()
        terms, norms = self.train_epoch(epoch)
        trained = time.perf_counter()
        record: dict[str, Any] = {
            "epoch": epoch,
            "terms": terms,
        }
        if norms:
            record["gradient_norms"] = norms
        best = True
        if self.has_validation:
            self.model.eval()
            result = evaluate(self.model, self.dataset, split="valid", k=(self.k,), mask=self.mask, ties=self.ties)
            if self.metric not in result.metrics:
                raise UsageError(f"unknown metric {self.metric!r}", f"choose from: {', '.join(result.metrics)}")
            record["valid"] = result.metrics
            best = self.stopping.update(epoch, result.metrics[self.metric])
        record["best_epoch"] = self.stopping.best_epoch if self.has_validation else epoch
        record["seconds"] = {"train": trained - start, "valid": time.perf_counter() - trained}
        self.history.append(record)
        self.epoch = epoch
        if best:
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        if self.directory is not None:
            self._save(best)
        self._notify("on_epoch_end", record)

    def train_epoch(self, epoch: int) -> tuple[dict[str, float], dict[str, float]]:
        """Take every step of one epoch, without validation and without writing anything.

        Returns
        -------
        terms : dict of str to float
            Mean of every weighted term over the steps, and their ``total``.
        norms : dict of str to float
            Gradient norm of each term on the first batch, where the epoch is one to diagnose; otherwise empty.
        """
        norms: dict[str, float] = {}
        sums: dict[str, float] = {}
        self.model.train()
        for step, batch in enumerate(self.sampler.epoch(epoch)):
            if step == 0 and self.diagnose_every and (epoch - 1) % self.diagnose_every == 0:
                norms = self.gradient_norms(batch, epoch)
            terms = self._step(batch.to(self.device), epoch, step)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value
            self._notify("on_step_end", step, terms)
            self._interrupts.check()
        return {name: value / len(self.sampler) for name, value in sums.items()}, norms

    def weighted_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return every term of the objective for one batch, weighted, by name."""
        outputs = self.model.step(batch, double_backward=self.double_backward)
        terms = dict(outputs.losses)
        for regularizer in self.regularizers:
            factor = regularizer.factor(epoch)
            if factor:
                terms[regularizer.name] = factor * regularizer(outputs)
        return terms

    def _step(self, batch: Batch, epoch: int, step: int) -> dict[str, float]:
        terms = self.weighted_terms(batch, epoch)
        total = torch.stack(list(terms.values())).sum()
        values = {name: term.item() for name, term in terms.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise RunError(
                    f"term {name!r} became {value} in epoch {epoch}, step {step + 1}",
                    "lower --lr or the weight of the term; the last checkpoint is kept",
                )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        return {**values, "total": sum(values.values())}

    def gradient_norms(self, batch: Batch, epoch: int) -> dict[str, float]:
        """Return the norm of each weighted term's gradient over all parameters.

        It answers whether a penalty moves anything at all.
        """
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        norms = {}
        for name, term in self.weighted_terms(batch.to(self.device), epoch).items():
            gradients = (
                torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
                if term.requires_grad
                else ()
            )
            squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
            norms[name] = math.sqrt(float(torch.stack(squares).sum())) if squares else 0.0
        return norms

    def _notify(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, *arguments)

    def _save(self, best: bool) -> None:
        assert self.directory is not None
        # The checkpoint is the truth: the other files are written from it, and again on resume if a kill fell between.
        save_checkpoint(
            self.directory / "checkpoint.pt",
            {
                "epoch": self.epoch,
                "rng": self.rng,
                "history": json.dumps(self.history),
                "stopping": self.stopping.state_dict(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "best": self._best,
            },
        )
        if best:
            save_weights(self.directory / "model.safetensors", self._best)
        with (self.directory / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.history[-1]) + "\n")

    def _load(self) -> None:
        if self.directory is None:
            raise UsageError("nothing to resume from", "give the trainer the run's directory")
        state = load_checkpoint(self.directory / "checkpoint.pt")
        if state["rng"] != self.rng:
            raise RunError(
                f"the checkpoint was made with seed {state['rng']}, not {self.rng}",
                "resume with the same seed",
            )
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise RunError(
                "the checkpoint belongs to another model", "resume with the run's own configuration"
            ) from error
        self.optimizer.load_state_dict(state["optimizer"])
        self.stopping.load_state_dict(state["stopping"])
        self.history = json.loads(state["history"])
        self.epoch = state["epoch"]
        self._best = state["best"]
        save_weights(self.directory / "model.safetensors", self._best)
        with atomic_write(self.directory / "metrics.jsonl", "w") as file:
            file.writelines(json.dumps(record) + "\n" for record in self.history)


def _has_fused_cpu_adam() -> bool:
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    return (major, minor) >= (2, 4)
