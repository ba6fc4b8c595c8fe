"""What every model is: built from a heterograph, it owns its batches and lays its steps open, encodes and scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np
import torch
from torch import Tensor, nn

from mbgraph._kernels import Workspace
from mbgraph.errors import DataError, UsageError
from mbgraph.evaluation.ranking import EmbeddingScorer
from mbgraph.models.batches import Batches, TripleBatches
from mbgraph.models.context import StepContext
from mbgraph.models.options import EmbeddingOptions, ModelOptions, TrainingOptions
from mbgraph.models.rules import UpdateRule
from mbgraph.nn.alignment import alignment_weights
from mbgraph.nn.relations import Relations
from mbgraph.nn.triples import triple_at
from mbgraph.registry import Registry
from mbgraph.regularizers.outputs import StepOutputs, Triple
from mbgraph.typing import IntArray

if TYPE_CHECKING:
    from mbgraph.data.dataset import MultiBehaviorDataset
    from mbgraph.evaluation.ranking import Scorer
    from mbgraph.nn.relations import GraphLike

__all__ = ["MODELS", "EmbeddingRecommender", "Encoded", "Recommender", "build_model"]

MODELS: Registry[type[Recommender]] = Registry("model", "mbgraph.models")


@dataclass(frozen=True)
class Encoded:
    """Embeddings of all real users and items; padding rows are gone.

    Attributes
    ----------
    users, items : Tensor (U, D), (I, D)
        Fused embeddings, the ones that score.
    behaviors : mapping of str to (Tensor (U, D), Tensor (I, D))
        Embeddings per behavior, in the order of the model's behaviors.
    """

    users: Tensor
    items: Tensor
    behaviors: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Recommender(nn.Module):
    """Base class of all models.

    A subclass sets `name`, nests a class ``Options`` of `ModelOptions` with one field per option, implements `scorer`
    and, where it is trained, `step`, and registers with ``@MODELS.register(name)``.

    Parameters
    ----------
    graph : DGLGraph, PyG HeteroData or Relations
        Train edges: edge types are behaviors from one node type (users) to another (items).
    target : str
        Behavior to predict.
    behaviors : sequence of str, optional
        Behaviors to read, in their order: pass ``dataset.behaviors``. By default the graph's, which is the dataset's
        order for a dataset's graph. The target always comes last.
    rng : int
        Seed of the initialisation.
    **options
        Fields of the class's ``Options``.

    Attributes
    ----------
    options : ModelOptions
    relations : Relations
        The behaviors that the model reads, target last.
    behaviors : tuple of str
        Their names, in order.
    num_users, num_items : int
    """

    name: ClassVar[str]
    Options: ClassVar[type[ModelOptions]] = ModelOptions
    trainable: ClassVar[bool] = True
    learns: ClassVar[bool] = False
    """Whether the model, which no trainer trains, has weights that `learn` finds in one go."""
    needs_auxiliary: ClassVar[bool] = False
    """Whether the model cannot do with the target behavior alone."""
    reads_blocks: ClassVar[bool] = False
    """Whether all that a training step reads of the graph goes through `mbgraph.nn.propagate`, so that ``block_users``
    can be given."""
    ordered: ClassVar[bool] = False
    """Whether another order of the auxiliary behaviors gives another model, as in a cascade."""
    citation: ClassVar[str] = ""
    """Where the model comes from, in one line."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in vars(cls) and "Options" in vars(cls):
            cls.Options.called = f"model {cls.name!r}"

    def __init__(
        self,
        graph: GraphLike,
        target: str,
        *,
        behaviors: tuple[str, ...] | None = None,
        rng: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.options = self.Options(**options)
        self.target = target
        chosen = self.reads(Relations.of(graph, behaviors, target))
        if isinstance(self.options, EmbeddingOptions):
            chosen = chosen.replace(backend=self.options.backend)
        if self.ordered and len(chosen) > 2 and not chosen.has_order:
            raise UsageError(
                f"model {self.name!r} reads the behaviors in order, and this graph has none",
                f"name them: behaviors={tuple(chosen)}",
            )
        if self.needs_auxiliary and not chosen.auxiliary:
            instead = "lightgcn" if self.trainable else "popularity"
            raise UsageError(f"{self.name} needs an auxiliary behavior beside the target", f"use --model {instead}")
        self.relations = chosen
        self.num_users, self.num_items = chosen.num_users, chosen.num_items
        self._alignments: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}
        if isinstance(rng, bool) or not isinstance(rng, int | np.integer) or rng < 0:
            raise UsageError(f"rng must be a non-negative integer, got {rng!r}", "it is the seed of the initialisation")
        self.rng = int(rng)

    @classmethod
    def has_weights(cls) -> bool:
        """Return whether the model has something to keep that data and options alone do not give."""
        return cls.trainable or cls.learns

    @classmethod
    def variants(cls) -> tuple[str, ...]:
        """Return the named presets of the options, the default first; empty where the model has none."""
        variant = cls.Options.model_fields.get("variant")
        return () if variant is None else get_args(variant.annotation)

    def reads(self, relations: Relations) -> Relations:
        """Return the relations that the model reads of a graph's; all of them by default."""
        return relations

    @property
    def behaviors(self) -> tuple[str, ...]:
        """Behaviors that the model reads, in order, target last."""
        return tuple(self.relations)

    @cached_property
    def alignment(self) -> dict[str, Tensor]:
        """How much each behavior says about what each user buys, see `mbgraph.nn.alignment_weights`: (U,) each."""
        return alignment_weights(self.relations)

    @cached_property
    def alignment_levels(self) -> dict[str, float]:
        """The mean of `alignment` over all users, by behavior."""
        return {name: float(weights.mean()) for name, weights in self.alignment.items()}

    def alignment_like(self, table: Tensor) -> dict[str, Tensor]:
        """Return `alignment` on the device and in the type of a table, kept from the first step on: (U,) each."""
        key = (table.device, table.dtype)
        if key not in self._alignments:
            self._alignments[key] = {name: weights.to(table) for name, weights in self.alignment.items()}
        return self._alignments[key]

    def other_relations(self, graph: GraphLike | None) -> Relations:
        """Return the relations of another graph over the same nodes, the model's own for None.

        Raises
        ------
        UsageError
            If the graph has other numbers of users and items.
        """
        if graph is None:
            return self.relations
        other = Relations.of(graph, self.behaviors, self.target).replace(backend=self.relations[self.target].backend)
        if (other.num_users, other.num_items) != (self.num_users, self.num_items):
            raise UsageError(
                f"the graph has {other.num_users} users and {other.num_items} items, the model "
                f"{self.num_users} and {self.num_items}",
                "give a graph over the same nodes",
            )
        return other

    def check_dataset(self, dataset: MultiBehaviorDataset) -> None:
        """Raise `DataError` unless the model was built on the train edges of ``dataset``."""
        if (self.num_users, self.num_items) != (dataset.num_users, dataset.num_items):
            raise DataError(
                f"the model was built for {self.num_users} users x {self.num_items} items, dataset {dataset.name!r} "
                f"has {dataset.num_users} x {dataset.num_items}",
                "use the dataset the model was built on",
            )
        for behavior in self.behaviors:
            if behavior not in dataset.edges or not self._has_edges_of(behavior, dataset):
                raise DataError(
                    f"the model was built on other {behavior!r} edges than the train edges of dataset {dataset.name!r}",
                    "build it on dataset.graph; to score from another graph, pass model.scorer(graph)",
                )
        order = tuple(behavior for behavior in dataset.behaviors if behavior in self.behaviors)
        if self.ordered and order != self.behaviors and order[-1:] == (self.target,):
            raise DataError(
                f"the model reads {', '.join(self.behaviors)}, dataset {dataset.name!r} has {', '.join(order)}",
                "build it with behaviors=dataset.behaviors",
            )

    def _has_edges_of(self, behavior: str, dataset: MultiBehaviorDataset) -> bool:
        pointers, indices = self.relations[behavior].neighbors("user")
        own = dataset.csr(behavior)
        return np.array_equal(pointers, own.indptr) and np.array_equal(indices, own.indices)

    # --- training ---------------------------------------------------------------------------------------------------

    def batches(self, dataset: MultiBehaviorDataset, training: TrainingOptions, rng: int) -> Batches:
        """Return the model's batches of a dataset: triples of every behavior by default."""
        return TripleBatches(dataset, self.sampled_behaviors(), training, rng=rng)

    def sampled_behaviors(self) -> tuple[str, ...]:
        """Return the behaviors of which triples are drawn; those that the model reads by default."""
        return self.behaviors

    def update_rule(self, training: TrainingOptions) -> UpdateRule:
        """Return how terms become an update of the parameters: their sum, by one optimizer, by default."""
        return UpdateRule(self, training)

    def prepare(self, dataset: MultiBehaviorDataset) -> None:
        """Compute what training needs of a dataset once; nothing by default."""

    def begin_epoch(self, context: StepContext) -> None:
        """Compute what holds for an epoch (``context.step`` is 0): perturbed graphs, caches; nothing by default."""

    def step(self, batch: Any, context: StepContext) -> StepOutputs:
        """Return losses and intermediate results of one training step; only trainable models have one.

        All random draws come from ``context.generator(..)``, so that the same step draws the same again.
        """
        raise UsageError(f"model {self.name!r} is not trained", "evaluate it as it is")

    def forward(self, batch: Any, context: StepContext) -> StepOutputs:
        """Return `step`, so that wrappers such as DistributedDataParallel train the model."""
        return self.step(batch, context)

    def attach(self, runs: Mapping[str, Recommender]) -> None:
        """Take trained models that the option ``runs`` names; only models with that option are given any."""
        raise UsageError(f"model {self.name!r} reads no other runs", "use --model twostage")

    def learn(self, dataset: MultiBehaviorDataset) -> dict[str, Any]:
        """Find the weights in one go, from train and validation pairs alone, and return what they are as plain values.

        Only models that say that they `learn` do; it comes to the same numbers whenever it is called.
        """
        instead = "train it with mbgraph.Trainer" if self.trainable else "evaluate it as it is"
        raise UsageError(f"model {self.name!r} learns nothing in one go", instead)

    # --- use --------------------------------------------------------------------------------------------------------

    def explain(self, users: IntArray, items: IntArray) -> list[dict[str, float]]:
        """Return what speaks for pairs, by name, in the units of the score: (N,), (N,) -> N mappings, largest first."""
        raise UsageError(f"model {self.name!r} has no evidence to show", "use --model twostage")

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return embeddings of all nodes; models without any raise `UsageError`."""
        raise UsageError(f"model {self.name!r} has no embeddings", "use an embedding model such as rmbrec")

    @abstractmethod
    def scorer(self, graph: GraphLike | None = None) -> Scorer:
        """Return an object that scores all items for blocks of users, from ``graph`` or the training graph."""


class EmbeddingRecommender(Recommender):
    """A model that scores by dot products of embeddings, from one table per side.

    A subclass implements `encode` and calls `make_tables` once. To `mbgraph.nn.propagate` it may pass its ``space``,
    memory that one call gives back and the next takes again.
    """

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        self.space = Workspace()

    def make_tables(
        self, width: int, *, std: float | None = None, padding: int = 0, zero_padding: bool = False
    ) -> None:
        """Make the embedding tables, ``padding`` extra rows last: normal with ``std``, or Xavier uniform.

        ``zero_padding`` starts the extra rows as zeros; the others are what they are without it.

        Shapes: -> ``user_embedding`` (U + padding, D), ``item_embedding`` (I + padding, D).
        """
        generator = torch.Generator().manual_seed(self.rng)
        for side, count in (("user", self.num_users), ("item", self.num_items)):
            table = torch.empty(count + padding, width)
            if std is None:
                nn.init.xavier_uniform_(table, generator=generator)
            else:
                table.normal_(generator=generator).mul_(std)
            if zero_padding:
                table[count:] = 0
            setattr(self, f"{side}_embedding", nn.Parameter(table))

    @property
    def tables(self) -> tuple[Tensor, Tensor]:
        """User table and item table, padding rows included."""
        return self.get_parameter("user_embedding"), self.get_parameter("item_embedding")

    @torch.no_grad()
    def scorer(self, graph: GraphLike | None = None) -> EmbeddingScorer:
        """Return the dot-product scorer."""
        encoded = self.encode(graph)
        return EmbeddingScorer(encoded.users, encoded.items)

    def ego_triples(self, rows: Mapping[str, Triple]) -> dict[str, Triple]:
        """Return table rows of triples by behavior: 3 x (B,) -> 3 x (B, D)."""
        return {name: triple_at(self.tables, numbers) for name, numbers in rows.items()}

    def target_outputs(
        self, numbers: Triple, triple: Triple, margin: Tensor, risk: Tensor, **entries: Any
    ) -> StepOutputs:
        """Return what a step lays open whose only loss is one of the target's triples.

        Parameters
        ----------
        numbers, triple : Triple
            Node numbers of the triples, and the embeddings that were compared.
        margin : Tensor (B,) or (B, n)
        risk : Tensor ()
            The loss.
        **entries
            Further entries of `StepOutputs`.
        """
        present = len(margin) > 0
        return StepOutputs(
            self.target,
            losses={"main": risk},
            risks={self.target: risk} if present else {},
            margins={self.target: margin} if present else {},
            triples={self.target: triple},
            ego=partial(self.ego_triples, {self.target: numbers}),
            tables=self.tables,
            **entries,
        )


def build_model(
    name: str,
    graph: GraphLike,
    target: str,
    options: Mapping[str, Any] | None = None,
    *,
    behaviors: tuple[str, ...] | None = None,
    rng: int = 0,
) -> Recommender:
    """Make a model by its registered name.

    Raises
    ------
    UnknownNameError
        For an unknown model, or an option the model does not read; the message names the nearest one.
    UsageError
        For a wrong value of an option.
    """
    return MODELS.get(name)(graph, target, behaviors=behaviors, rng=rng, **(options or {}))
