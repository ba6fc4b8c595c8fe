"""The training loop: batches, steps, regularizers, the update; validate, remember the best, stop early."""

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

from mbgraph import processes
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import RunError, UnknownNameError, UsageError, one_line
from mbgraph.evaluation.evaluate import evaluate
from mbgraph.evaluation.options import EvaluationOptions
from mbgraph.files import append_line, atomic_write
from mbgraph.models.base import Recommender
from mbgraph.models.batch_rule import choose_batch
from mbgraph.models.context import StepContext
from mbgraph.models.options import TrainingOptions
from mbgraph.nn.blocks import Block, reading
from mbgraph.regularizers.base import Regularizer
from mbgraph.training.callbacks import Callback, EarlyStopping
from mbgraph.training.checkpoint import CHECKPOINT, check_weights, load_checkpoint, save_checkpoint, save_weights
from mbgraph.training.devices import resolve_device
from mbgraph.training.interrupts import Interrupts
from mbgraph.training.steps import CudaRecorder, Steps, reason_against_recording

__all__ = ["FitResult", "Trainer"]


@dataclass
class FitResult:
    """What training came to.

    Attributes
    ----------
    epochs : int
        Epochs trained.
    best_epoch : int
        The epoch whose weights the model holds now.
    records : list of dict
        One record per epoch, as in ``metrics.jsonl``.
    seconds_per_epoch : float
        Median training time of an epoch, validation not included.
    interrupted : bool
        True if Ctrl-C ended it.
    """

    epochs: int
    best_epoch: int
    records: list[dict[str, Any]] = field(repr=False)
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
    training : TrainingOptions, optional
        The model's own by default.
    evaluation : EvaluationOptions, optional
        ``metric`` decides the best epoch; ``mask`` and ``ties`` are those of the validation.
    rng : int
        Seed of batches and of everything a model draws in a step. The initialisation has the model's own.
    device : {"auto", "cpu", "cuda"}
        Where to train.
    directory : path, optional
        Where to write ``metrics.jsonl``, ``checkpoint.pt`` and ``model.safetensors``; nothing is written without it.
    callbacks : sequence of Callback
    **options
        Single fields of `TrainingOptions` and `EvaluationOptions`, for example ``epochs=50, metric="NDCG@20"``.

    Attributes
    ----------
    unrecorded : str or None
        Why steps are taken operation by operation, None where they may be recorded, see `mbgraph.training.steps`.

    Raises
    ------
    DataError
        If the model was built on other train edges than the dataset's.
    UsageError
        If the model is not trained, two terms share a name, an option is wrong, or no user can be trained on.

    Examples
    --------
    >>> import mbgraph as mb
    >>> ds = mb.load_dataset("demo")
    >>> model = mb.models.LightGCN(ds.graph, ds.target, embedding_dim=8)
    >>> Trainer(model, ds, epochs=1, rng=7).fit().epochs
    1
    """

    def __init__(
        self,
        model: Recommender,
        dataset: MultiBehaviorDataset,
        regularizers: Sequence[Regularizer] | None = None,
        *,
        training: TrainingOptions | None = None,
        evaluation: EvaluationOptions | None = None,
        rng: int = 2026,
        device: str = "auto",
        directory: str | os.PathLike[str] | None = None,
        callbacks: Sequence[Callback] = (),
        **options: Any,
    ) -> None:
        if not model.trainable:
            raise UsageError(f"model {model.name!r} is not trained", "evaluate it as it is")
        model.check_dataset(dataset)
        sections = (training or model.options.training(), evaluation or EvaluationOptions())
        self.training, self.evaluation = _with_options(*sections, options)
        self.device = resolve_device(device)
        self.model, self.dataset = model.to(self.device), dataset
        chosen = tuple(model.options.regularizers() if regularizers is None else regularizers)
        if self.training.batch_size == "auto":
            choice = choose_batch(model, dataset, self.training, chosen)
            self.training, chosen = choice.training, choice.regularizers
        self.regularizers = [regularizer for regularizer in chosen if regularizer.weight > 0]
        names = [regularizer.term for regularizer in self.regularizers]
        if len(set(names)) != len(names):
            raise UsageError(f"two regularizers share a name: {', '.join(names)}", "give one of them a label")
        self.batches = model.batches(dataset, self.training, rng)
        self.cutoff = min(self.evaluation.metric_cutoff, dataset.num_items)
        self.metric = f"{self.evaluation.metric.partition('@')[0]}@{self.cutoff}"
        self.stopping = EarlyStopping(self.training.patience)
        self.rng = int(rng)
        self.directory = None if directory is None else Path(directory)
        self.callbacks = list(callbacks)
        self.records: list[dict[str, Any]] = []
        self.epoch = 0
        if self.training.block_users and not model.reads_blocks:
            raise UsageError(
                f"model {model.name!r} reads the whole graph in a step and knows no block_users",
                "leave block_users out",
            )
        self.rule = model.update_rule(self.training)
        facts = (self.device, self.training, type(model), type(self.rule), processes.count())
        self.unrecorded = reason_against_recording(*facts)
        recorder = CudaRecorder() if self.unrecorded is None else None
        self.steps = Steps(self.weighted_terms, self._factors, self.rule, self.device, recorder)
        self._best: dict[str, Tensor] = {}
        self._interrupts = Interrupts()
        model.prepare(dataset)

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of an epoch."""
        return len(self.batches)

    @property
    def has_validation(self) -> bool:
        """Whether there are pairs to select on."""
        return len(self.dataset.valid) > 0

    @property
    def is_over(self) -> bool:
        """Whether the last epoch is trained, or early stopping says so."""
        return self.epoch >= self.training.epochs or (self.has_validation and self.stopping.should_stop(self.epoch))

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
        UsageError
            If the directory holds another training that this one does not resume.
        """
        if resume:
            self._load()
        elif self.directory is not None and not self.epoch and (self.directory / "checkpoint.pt").exists():
            raise UsageError(
                f"{self.directory} holds a training already",
                "continue it with fit(resume=True), or choose another directory",
            )
        self._notify("on_train_begin")
        interrupted = False
        with self._interrupts:
            try:
                while not self.is_over:
                    self._run_epoch(self.epoch + 1)
                    self._interrupts.check()
            except KeyboardInterrupt:
                interrupted = True
        if self._best:
            self.model.load_state_dict(self._best)
        self._notify("on_train_end")
        seconds = sorted(record["seconds"]["train"] for record in self.records)
        return FitResult(
            epochs=len(self.records),
            best_epoch=self.stopping.best_epoch if self.has_validation else len(self.records),
            records=self.records,
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
            mask, ties = self.evaluation.mask, self.evaluation.ties
            result = evaluate(self.model, self.dataset, split="valid", k=(self.cutoff,), mask=mask, ties=ties)
            record["valid"] = processes.tell(result.metrics)  # they stop together
            best = self.stopping.update(epoch, record["valid"][self.metric])
        record["best_epoch"] = self.stopping.best_epoch if self.has_validation else epoch
        record["seconds"] = {"train": trained - start, "valid": time.perf_counter() - trained}
        self.records.append(record)
        self.epoch = epoch
        if best:
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        if self.directory is not None and processes.is_first():
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
        processes.follow(self.model.parameters())
        every = self.training.diagnose_every
        self.model.begin_epoch(StepContext(epoch, 0, self.rng))
        for step, batch in enumerate(self.batches.epoch(epoch)):
            context = StepContext(epoch, step, self.rng)
            if step == 0 and every and (epoch - 1) % every == 0:
                norms = self.gradient_norms(batch, context)
            terms = self._step(batch.to(self.device), context)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value
            self._notify("on_step_end", step, terms)
            self._interrupts.check()
        return {name: value / self.steps_per_epoch for name, value in sums.items()}, norms

    def weighted_terms(self, batch: Any, context: StepContext) -> dict[str, Tensor]:
        """Return every term of the objective for one batch, weighted, by name."""
        with reading(self.block(batch, context)):
            return self._terms(batch, context)

    def block(self, batch: Any, context: StepContext) -> Block | None:
        """Return the users whose pairs a step reads, None for the whole graph."""
        if not self.training.block_users:
            return None
        own = torch.unique(batch.users.cpu())
        drawn = torch.from_numpy(context.rng("block").permutation(self.dataset.num_users))
        is_other = torch.ones(len(drawn), dtype=torch.bool)
        is_other[own] = False
        others = drawn[is_other[drawn]]
        return Block(torch.cat([own, others[: max(0, self.training.block_users - len(own))]]))

    def _factors(self, context: StepContext) -> tuple[float, ...]:
        # read past whoever watches what a step reads: the factors are known to a recording
        epoch = object.__getattribute__(context, "epoch")
        return tuple(regularizer.factor(epoch) for regularizer in self.regularizers)

    def _terms(self, batch: Any, context: StepContext) -> dict[str, Tensor]:
        outputs = self.model(batch, context)
        terms = dict(outputs.losses)
        for regularizer, factor in zip(self.regularizers, self._factors(context), strict=True):
            if factor:
                if regularizer.term in terms:
                    raise UsageError(
                        f"the model has a term {regularizer.term!r} of its own",
                        f"give the regularizer another name: {regularizer.name}:label=..",
                    )
                terms[regularizer.term] = factor * regularizer(outputs)
        return terms

    def _step(self, batch: Any, context: StepContext) -> dict[str, float]:
        if self.device.type == "cpu" and self.steps.recorder is None:
            terms = self.weighted_terms(batch, context)
            values = self._values(terms, context)
            self.rule.step(terms)
        else:  # the device is waited for once, when it has everything to do
            values = self._values(self.steps.take(batch, context), context)
        return {**values, "total": sum(values.values())}

    def _values(self, terms: dict[str, Tensor], context: StepContext) -> dict[str, float]:
        """Return the terms as numbers, in one go; raises `RunError` for one that is none."""
        numbers = torch.stack([term.detach().to(self.device) for term in terms.values()]).tolist() if terms else []
        values = dict(zip(terms, numbers, strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                raise RunError(
                    f"term {name!r} became {value} in epoch {context.epoch}, step {context.step + 1}",
                    "lower --lr or the weight of the term; the last checkpoint is kept",
                )
        return values

    def gradient_norms(self, batch: Any, context: StepContext) -> dict[str, float]:
        """Return the norm of each weighted term's gradient over all parameters; nothing else changes.

        It answers whether a penalty moves anything at all.
        """
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        norms = {}
        for name, term in self.weighted_terms(batch.to(self.device), context).items():
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
        state = {
            "epoch": self.epoch,
            "rng": self.rng,
            "records": json.dumps(self.records),
            "stopping": self.stopping.state_dict(),
            "model": self.model.state_dict(),
            "rule": self.rule.state_dict(),
            "best": self._best,
        }
        save_checkpoint(self.directory, state, self._best if best else None)
        append_line(self.directory / "metrics.jsonl", json.dumps(self.records[-1]))

    def _load(self) -> None:
        if self.directory is None:
            raise UsageError("nothing to resume from", "give the trainer the run's directory")
        path = self.directory / CHECKPOINT
        state = load_checkpoint(path)
        try:
            self._restore(state)
        except RunError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
            # a state dict of another shape raises any of them, in torch as well as here
            raise RunError(
                f"checkpoint {path} is not one of this run ({type(error).__name__}: {one_line(error, 120)})",
                "restore it, or fit the model again",
            ) from error
        if not processes.is_first():
            return
        save_weights(self.directory, self._best)
        with atomic_write(self.directory / "metrics.jsonl", "w") as file:
            file.writelines(json.dumps(record) + "\n" for record in self.records)

    def _restore(self, state: dict[str, Any]) -> None:
        if state["rng"] != self.rng:
            raise RunError(
                f"the checkpoint was made with seed {state['rng']}, not {self.rng}",
                "resume with the same seed",
            )
        records = json.loads(state["records"])
        if not isinstance(records, list) or [record["epoch"] for record in records] != [
            number + 1 for number in range(state["epoch"])
        ]:
            raise ValueError("its records are not one for each epoch")
        check_weights(self.model, state["model"], "the checkpoint")
        check_weights(self.model, state["best"], "the checkpoint")
        self.model.load_state_dict(state["model"])
        self.rule.load_state_dict(state["rule"])
        self.steps.forget()  # it writes to moments that are others now
        self.stopping.load_state_dict(state["stopping"])
        self.records, self.epoch, self._best = records, state["epoch"], state["best"]


def _with_options(
    training: TrainingOptions, evaluation: EvaluationOptions, options: dict[str, Any]
) -> tuple[TrainingOptions, EvaluationOptions]:
    """Return both sections with single fields changed."""
    known = (*training.names(), *evaluation.names())
    for name in options:
        if name not in known:
            raise UnknownNameError("option of the trainer", name, known)
    return (
        training.replace(**{name: value for name, value in options.items() if name in training.names()}),
        evaluation.replace(**{name: value for name, value in options.items() if name in evaluation.names()}),
    )
