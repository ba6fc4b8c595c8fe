"""What a model can be told: its own options, and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from mbgraph.errors import UsageError
from mbgraph.regularizers.base import Regularizer
from mbgraph.schema import Section

__all__ = [
    "HISTORIES",
    "SAMPLERS",
    "CascadeOptions",
    "Count",
    "EmbeddingOptions",
    "History",
    "Layers",
    "ModelOptions",
    "Positive",
    "Sampler",
    "Share",
    "TrainingOptions",
    "NonNegative",
]

Sampler = Literal["per-user", "per-edge", "every-edge", "with-replacement", "distinct-users"]
History = Literal["all", "behavior", "target"]
N = TypeVar("N", int, float)
SAMPLERS: tuple[str, ...] = Sampler.__args__  # type: ignore[attr-defined]
HISTORIES: tuple[str, ...] = History.__args__  # type: ignore[attr-defined]

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Layers = Annotated[int, Field(ge=1, le=64)]
"""Propagation steps, or layers of another kind, of which there must be one."""
NonNegative = Annotated[float, Field(ge=0, le=1_000_000)]
Positive = Annotated[float, Field(gt=0, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]


class TrainingOptions(Section):
    """How a model is trained."""

    called = "the training options"

    epochs: Count = 200
    """Most epochs."""
    patience: Annotated[int, Field(ge=0, le=1_000_000)] = 20
    """Epochs without a better validation metric before training stops."""
    batch_size: Annotated[int, Field(ge=1, le=2**24)] | Literal["auto"] = 1024
    """Rows per step. ``auto`` keeps the model's own number where an epoch has at most 32 steps, and takes the least
    multiple of it with which it has where the graph is larger."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam (coupled weight decay), AdamW (decoupled) or plain gradient descent."""
    lr: Positive = 1e-3
    """Step size of the optimizer; with ``batch_size=auto`` the one that belongs to the model's own batch."""
    lr_scaling: Literal["none", "sqrt", "linear"] = "sqrt"
    """What ``batch_size=auto`` multiplies ``lr`` by where it takes a batch n times as large: 1, the root of n, or n."""
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on the step size after every ``lr_decay_steps`` steps."""
    lr_decay_steps: Count = 1000
    """Steps between two such factors."""
    weight_decay: NonNegative = 0.0
    """L2 on all parameters by the optimizer."""
    sampler: Sampler = "per-user"
    """What the rows of an epoch are. ``per-user``: every user once; ``per-edge``: every target edge once;
    ``every-edge``: every edge of every behavior once; ``with-replacement``: as many users as there are target edges,
    drawn uniformly; ``distinct-users``: as many steps as ``per-edge``, each of users drawn without replacement."""
    history: History = "all"
    """Items excluded as negatives: those of ``all`` behaviors of the user, of the triple's own ``behavior``, or of the
    ``target``."""
    negatives: Annotated[int, Field(ge=1, le=1000)] = 1
    """Negative items per row."""
    block_users: Annotated[int, Field(ge=0, le=2**31)] = 0
    """0: a step propagates over the whole graph. Otherwise over the pairs of so many users, those of its batch and
    others drawn anew, in models that can (`mbgraph.nn.blocks`): cheaper steps, and another training."""
    record_steps: bool = False
    """On CUDA, record a step as one graph of kernels and replay it for batches of the same shapes, where nothing stands
    against it; same numbers."""
    diagnose_every: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    """Every that many epochs the gradient norm of each term is recorded on the first batch; 0 never."""

    @property
    def rows(self) -> int:
        """``batch_size`` once it is a number; raises `UsageError` for ``auto``, which the trainer decides."""
        if self.batch_size == "auto":
            raise UsageError("batch_size=auto is decided where a trainer is made", "give batches a number of rows")
        return self.batch_size

    def only_sampler(self, sampler: str, reason: str) -> None:
        """Raise `UsageError` unless rows are of a kind: the model's batches know no other one."""
        if self.sampler != sampler:
            raise UsageError(f"{reason} and knows no sampler {self.sampler!r}", "leave sampler out")


class ModelOptions(Section):
    """Base of every model's options: a model nests a subclass called ``Options``."""

    called = "the model"

    def training(self) -> TrainingOptions:
        """Return how the model with these options wants to be trained."""
        return TrainingOptions()

    def regularizers(self) -> tuple[Regularizer, ...]:
        """Return the regularizers that belong to the objective of the model with these options."""
        return ()

    def propagations(self, behaviors: int) -> int:
        """Return what a training step costs with so many behaviors, in layers of one graph, to both of its sides."""
        return 0

    def by_behavior(self, field: str, values: Sequence[N], behaviors: Sequence[str]) -> dict[str, N]:
        """Return the numbers of a field by behavior; raises `UsageError` unless there is one for each."""
        if len(values) != len(behaviors):
            raise UsageError(
                f"{field} of {self.called} has {len(values)} numbers for {len(behaviors)} behaviors",
                f"give one for each of {', '.join(behaviors)}",
            )
        return dict(zip(behaviors, values, strict=True))


class EmbeddingOptions(ModelOptions):
    """Options of models with a table of embeddings per side."""

    embedding_dim: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Width of the embedding tables."""
    num_layers: Annotated[int, Field(ge=0, le=64)] = 3
    """Number of propagation steps."""
    backend: Literal["auto", "dgl", "torch", "triton"] = "auto"
    """What computes neighbour sums, see `mbgraph.nn.Relation`. ``triton``: on CUDA kernels in Triton, else ``auto``."""
    row_dtype: Literal["float32", "bfloat16"] = "float32"
    """What neighbours read in training, see `mbgraph.nn.propagate`."""

    def propagations(self, behaviors: int) -> int:
        """See `ModelOptions.propagations`."""
        return self.num_layers * behaviors


class CascadeOptions(EmbeddingOptions):
    """Options of models whose behaviors follow each other, each with a number of layers of its own."""

    num_layers: Layers = 1
    """Propagation steps per behavior."""
    layers: tuple[Layers, ...] = ()
    """Propagation steps of each behavior, in order; empty: as ``num_layers`` says."""

    def layers_of(self, behaviors: Sequence[str]) -> dict[str, int]:
        """Return the number of layers by behavior; raises `UsageError` if ``layers`` has another length."""
        return self.by_behavior("layers", self.layers or (self.num_layers,) * len(behaviors), behaviors)

    def propagations(self, behaviors: int) -> int:
        """See `ModelOptions.propagations`."""
        return sum(self.layers_of([f"{number}" for number in range(behaviors)]).values())
