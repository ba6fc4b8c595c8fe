"""How a training step is taken: operation by operation, or recorded once and replayed.

On a graphics card most of a small step is the host, which launches some hundred short kernels. A CUDA graph launches
them as one: they read batches from, and write terms to, memory that stays where it is. A recording holds for batches of
the same shapes, so there is one per key of shapes, made when a key comes a second time; whatever is not recorded is
taken operation by operation, with the same kernels and the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from mbgraph.errors import one_line
from mbgraph.models.base import Recommender
from mbgraph.models.context import StepContext
from mbgraph.models.moving import rebuilt, tensors_of
from mbgraph.models.options import TrainingOptions
from mbgraph.models.rules import UpdateRule
from mbgraph.training.devices import repeatable

__all__ = ["MOST", "CudaRecorder", "Recorder", "Rerun", "Steps", "reason_against_recording"]

MOST = 64
"""Recordings that are kept; each keeps the memory of a step's terms and batch, all share that of its layers."""

Terms = dict[str, Tensor]


def reason_against_recording(
    device: torch.device, training: TrainingOptions, model: type[Recommender], rule: type[UpdateRule], processes: int
) -> str | None:
    """Return why no step of a training can be recorded, None where one may be; nothing but what is given is looked at.

    What a step reads of its context, such as random numbers of its own, is only seen when it runs: see `Steps.reason`.
    """
    if not training.record_steps:
        return "nobody asked for it"
    if device.type != "cuda":
        return f"there are no graphs of kernels on {device.type}"
    if processes > 1:
        return "processes exchange rows within a step"
    if training.block_users:
        return "every step reads other pairs of the graph (block_users)"
    if training.lr_decay != 1:
        return "the step size changes (lr_decay)"
    if model.begin_epoch is not Recommender.begin_epoch:
        return "the model prepares every epoch anew"
    if rule.step is not UpdateRule.step or rule.update is not UpdateRule.update or rule.derive is not UpdateRule.derive:
        return "the update looks at gradients on the host"
    return None


class Recorder(Protocol):
    """What makes a step that can be taken again."""

    def record(self, step: Callable[[], Terms]) -> tuple[Callable[[], None], Terms]:
        """Return what takes the step, any number of times, and the terms that it has then written; take none yet."""
        ...


class CudaRecorder:
    """Records into CUDA graphs that share their memory."""

    def __init__(self) -> None:
        self.pool: Any = None

    def record(self, step: Callable[[], Terms]) -> tuple[Callable[[], None], Terms]:
        """See `Recorder.record`; recording launches nothing."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            terms = step()
        self.pool = self.pool or graph.pool()
        return graph.replay, terms


class Rerun:
    """The twin of `CudaRecorder` for any device: what is replayed is the function, on the same memory."""

    def record(self, step: Callable[[], Terms]) -> tuple[Callable[[], None], Terms]:
        """See `Recorder.record`."""
        terms: Terms = {}

        def replay() -> None:
            for name, value in step().items():
                if name in terms:
                    terms[name].copy_(value)
                else:
                    terms[name] = value.clone()

        return replay, terms


class _Watched(StepContext):
    """A context that remembers whether a step has read it: what it then does differs from step to step."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("epoch", "step", "seed", "rng", "generator", "uniform"):
            object.__setattr__(self, "was_read", True)
        return super().__getattribute__(name)


class _Reads(TorchFunctionMode):
    """Notes which tensors torch was asked about while entered: their numbers, their shapes, their lengths."""

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()
        self._places = {id(tensor): place for place, tensor in enumerate(tensors)}
        self.places: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if id(leaf) in self._places:
                self.places.add(self._places[id(leaf)])
        return func(*args, **(kwargs or {}))


@dataclass
class _Recording:
    """A step of one key: where it reads a batch, what takes it, and where its terms then are."""

    buffers: list[Tensor]
    replay: Callable[[], None]
    terms: Terms


class Steps:
    """Takes the steps of a training.

    Parameters
    ----------
    terms : callable
        ``terms(batch, context)`` returns the weighted terms of a batch on the device.
    constants : callable
        ``constants(context)`` returns what else a step depends on: the factors of the terms in an epoch.
    rule : UpdateRule
    device : torch device
    recorder : Recorder, optional
        What records steps; without one all are taken operation by operation.

    Attributes
    ----------
    reason : str or None
        Why steps are not recorded although there is a recorder, once a step has shown it: it reads its context, or the
        device refused to record it.
    replayed : int
        Steps that were replayed.
    """

    def __init__(
        self,
        terms: Callable[[Any, StepContext], Terms],
        constants: Callable[[StepContext], Hashable],
        rule: UpdateRule,
        device: torch.device,
        recorder: Recorder | None = None,
    ) -> None:
        self.terms, self.constants, self.rule, self.device, self.recorder = terms, constants, rule, device, recorder
        self.reason: str | None = None
        self.replayed = 0
        self._places: set[int] = set()
        self._seen: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, _Recording] = {}

    def take(self, batch: Any, context: StepContext) -> Terms:
        """Take a step with a batch on the device, and return its terms, which the next step may overwrite."""
        with repeatable(self.device):
            made = self._run(batch, context) if self.recorder is None or self.reason else self._take(batch, context)
        self.rule.schedule.step()
        return made

    def forget(self) -> None:
        """Drop what was recorded: the memory that it writes to has been replaced."""
        self._recordings.clear()
        self._seen.clear()

    def _run(self, batch: Any, context: StepContext) -> Terms:
        terms = self.terms(batch, context)
        self.rule.update(terms)
        return {name: term.detach() for name, term in terms.items()}

    def _take(self, batch: Any, context: StepContext) -> Terms:
        tensors = tensors_of(batch)
        known = self._recordings.get(self._key(tensors, context))
        if known is None:
            made = self._watched(batch, tensors, context)
            key = self._key(tensors, context)
            self._seen[key] += 1
            if self._seen[key] > 1 and self.reason is None and len(self._recordings) < MOST:
                try:
                    self._recordings[key] = self._record(batch, tensors, context)
                except RuntimeError as error:  # recording launches nothing, so nothing has changed
                    self.reason = f"it cannot be recorded: {one_line(error, 120)}"
            return made
        torch._foreach_copy_(known.buffers, [tensors[place] for place in sorted(self._places)])
        known.replay()
        self.replayed += 1
        return known.terms

    def _key(self, tensors: list[Tensor], context: StepContext) -> Hashable:
        shapes = tuple((place, tensors[place].dtype, tensors[place].shape) for place in sorted(self._places))
        return len(tensors), shapes, self.constants(context)

    def _watched(self, batch: Any, tensors: list[Tensor], context: StepContext) -> Terms:
        """Take a step operation by operation, and see what it reads."""
        watched = _Watched(context.epoch, context.step, context.seed)
        with _Reads(tensors) as reads:
            made = self._run(batch, watched)
        if hasattr(watched, "was_read"):
            self.reason = "the step draws random numbers, or depends on the epoch"
        if not reads.places <= self._places:
            self._places |= reads.places
            self.forget()
        return made

    def _record(self, batch: Any, tensors: list[Tensor], context: StepContext) -> _Recording:
        """Record the step of a batch that was just taken, without taking it."""
        assert self.recorder is not None
        own = [tensor.clone() if place in self._places else tensor for place, tensor in enumerate(tensors)]
        static = rebuilt(batch, own)
        replay, terms = self.recorder.record(lambda: self._run(static, context))
        return _Recording([own[place] for place in sorted(self._places)], replay, terms)
