"""What every model is: built from a heterograph, encodes it, scores items, and lays a training step open."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.registry import Registry
from mbgraph.regularizers.base import Regularizer, StepOutputs

if TYPE_CHECKING:
    import dgl

    from mbgraph.evaluation.ranking import Scorer

__all__ = ["MODELS", "Batch", "Encoded", "Recommender", "TrainingDefaults", "build_model", "check_graph"]

MODELS: Registry[type[Recommender]] = Registry("model", "mbgraph.models")


@dataclass(frozen=True)
class Encoded:
    """Embeddings of all real users and items; padding rows are gone.

    Attributes
    ----------
    users, items : Tensor (U, D), (I, D)
        Fused embeddings, the ones that score.
    behaviors : mapping of str to (Tensor (U, D), Tensor (I, D))
        Embeddings per behavior.
    """

    users: Tensor
    items: Tensor
    behaviors: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """One training step's triples, row by row for all behaviors.

    Attributes
    ----------
    users : int64 tensor (B,)
        One user per row.
    positives, negatives : mapping of str to int64 tensor (B,)
        Per behavior an item of the user's history and one outside it; -1 where the user lacks the behavior.
    """

    users: Tensor
    positives: Mapping[str, Tensor]
    negatives: Mapping[str, Tensor]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        return Batch(
            self.users.to(device),
            {name: rows.to(device) for name, rows in self.positives.items()},
            {name: rows.to(device) for name, rows in self.negatives.items()},
        )


@dataclass(frozen=True)
class TrainingDefaults:
    """How a model wants to be trained unless told otherwise."""

    batch_size: int = 1024
    """Rows per step."""
    epochs: int = 200
    """Most epochs."""
    patience: int = 20
    """Epochs without a better validation metric before training stops."""
    lr: float = 1e-3
    """Adam's step size."""
    weight_decay: float = 0.0
    """Adam's coupled L2 on all parameters."""
    sampler: str = "per-user"
    """``per-user``: one triple per user and behavior and epoch; ``per-edge``: one per target edge."""
    history: str = "all"
    """Items excluded as negatives: ``all`` behaviors of the user, the triple's own ``behavior``, or the ``target``."""


class Recommender(nn.Module):
    """Base class of all models.

    A subclass sets `name`, takes ``(graph, target, **options)`` with every option a keyword that has a default, and
    registers with ``@MODELS.register(name)``. Its options are its configuration: `option_names` reads them from the
    signature, so an option that no code reads cannot be given.
    """

    name: ClassVar[str]
    trainable: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ()
    """Named presets of the options; the first is the default."""

    def __init__(self, graph: dgl.DGLGraph, target: str) -> None:
        super().__init__()
        check_graph(graph, target)
        self.target = target
        self.num_users, self.num_items = graph.num_nodes("user"), graph.num_nodes("item")

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the names of the model's options."""
        return tuple(
            name
            for name, parameter in inspect.signature(cls.__init__).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        )

    @property
    def training_defaults(self) -> TrainingDefaults:
        """How the model wants to be trained."""
        return TrainingDefaults()

    def default_regularizers(self) -> list[Regularizer]:
        """Return the regularizers that belong to the model's published objective."""
        return []

    def options(self) -> dict[str, Any]:
        """Return the resolved value of every option, enough to build the model again."""
        return {name: getattr(self, name) for name in self.option_names() if name != "rng"}

    def encode(self, graph: dgl.DGLGraph | None = None) -> Encoded:
        """Return embeddings of all nodes; models without any raise `UsageError`."""
        raise UsageError(f"model {self.name!r} has no embeddings", "use an embedding model such as rmbrec")

    @abstractmethod
    def scorer(self, graph: dgl.DGLGraph | None = None) -> Scorer:
        """Return an object that scores all items for blocks of users, from ``graph`` or the training graph."""

    def step(self, batch: Batch, *, double_backward: bool = False) -> StepOutputs:
        """Return losses and intermediate results of one training step; only trainable models have one."""
        raise UsageError(f"model {self.name!r} is not trained", "evaluate it as it is")


def check_graph(graph: dgl.DGLGraph, target: str) -> None:
    """Raise if ``graph`` is not a user-item heterograph or lacks the target behavior."""
    if set(graph.ntypes) != {"user", "item"}:
        raise UsageError(f"the graph has node types {sorted(graph.ntypes)}", "name them 'user' and 'item'")
    if target not in graph.etypes:
        raise UnknownNameError("target behavior", target, graph.etypes)


def build_model(name: str, graph: dgl.DGLGraph, target: str, options: Mapping[str, Any] | None = None) -> Recommender:
    """Make a model by its registered name.

    Raises
    ------
    UnknownNameError
        For an unknown model, or an option the model does not read; the message names the nearest one.
    """
    model_class = MODELS.get(name)
    options = dict(options or {})
    for option in options:
        if option not in model_class.option_names():
            raise UnknownNameError(f"option of model {name!r}", option, model_class.option_names())
    return model_class(graph, target, **options)
