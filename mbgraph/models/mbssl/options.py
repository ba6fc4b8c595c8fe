"""Options of MBSSL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from mbgraph.models.options import EmbeddingOptions, Layers, NonNegative, Positive, Share, TrainingOptions

__all__ = ["MBSSLOptions"]


class MBSSLOptions(EmbeddingOptions):
    """Options of `MBSSL`."""

    presets = {  # noqa: RUF012 (a ClassVar of the base)
        "mbgraph": {},
        "official": {
            "init": "xavier",
            "zero_similar": True,
            "zero_item": True,
            "drop_last": True,
            "target_users": True,
        },
        "light": {"num_layers": 2, "candidates": "batch"},
    }

    variant: Literal["mbgraph", "official", "light"] = "mbgraph"
    """``official`` is the published code; ``mbgraph`` leaves nodes that are too similar out of the denominators, where
    the code counts each as 1; ``light`` has two layers and contrasts within the batch."""
    num_layers: Layers = 4
    """Number of propagation steps."""
    init: Literal["normal", "xavier"] = "normal"
    """How tables and vectors of behaviors start: normal with standard deviation 0.1 and 1, from where training takes
    off sooner, or Xavier."""
    attention_dim: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Width of the attention between behaviors."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the entries of every layer that a step leaves out."""
    coefficients: tuple[NonNegative, ...] = ()
    """Weight of each behavior's loss, in order; empty: 4/6 of the last auxiliary one, 1/6 of the target, the rest of
    the others."""
    unseen: tuple[NonNegative, ...] = ()
    """Weight of a pair that is not there, by behavior; empty: 0.01 of all."""
    decay: NonNegative = 0.01
    """Weight of half the squared norms of the batch's users and of all items, in every behavior."""
    temperature: Positive = 0.2
    """Divides the cosines of both contrasts."""
    intra: NonNegative = 1.0
    """Weight of the contrast of two perturbed target graphs."""
    inter: tuple[NonNegative, ...] = ()
    """Weight of the contrast of the target with each auxiliary behavior, in order; empty: 1 of all."""
    perturb: Literal["nodes", "edges", "edges-per-layer"] = "nodes"
    """What the two perturbed target graphs of an epoch lack."""
    perturb_rate: Share = 0.5
    """Share of it."""
    similar_users: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Users more similar than the one of this rank are no negatives in the contrast with auxiliary behaviors."""
    similar_items: Annotated[int, Field(ge=1, le=100_000)] = 10
    """The same for items."""
    zero_similar: bool = False
    """Count a node that is too similar as a cosine of 0 instead of leaving it out."""
    zero_item: bool = False
    """Count an item of zeros among the candidates."""
    candidates: Literal["all", "batch"] = "all"
    """Who stands in the denominators: all nodes, or those of the batch's target pairs."""
    balance: bool = True
    """Keep the contrasts' gradients from outgrowing the main one's, see `GradientBalance`."""
    beta: Share = 0.9
    """What the balance keeps of its running norms."""
    relax: Share = 0.7
    """How far the balance goes."""
    block: Annotated[int, Field(ge=1, le=2**24)] = 512
    """Anchors per block of the denominators."""
    target_users: bool = False
    """Train only on users with a target pair."""
    drop_last: bool = False
    """Leave the last batch of an epoch out where it is not full."""

    def coefficients_of(self, behaviors: Sequence[str]) -> dict[str, float]:
        """Return the weight of each behavior's loss; raises `UsageError` if ``coefficients`` has another length."""
        count = len(behaviors)
        rest = () if count == 2 else (1 / 6 / (count - 2),) * (count - 2)
        usual = (*rest, 1 - 1 / 6 - sum(rest), 1 / 6)
        return self.by_behavior("coefficients", self.coefficients or usual, behaviors)

    def propagations(self, behaviors: int) -> int:
        """See `ModelOptions.propagations`; of the graphs and of two perturbed ones, in all behaviors."""
        return 3 * super().propagations(behaviors)

    def training(self) -> TrainingOptions:
        """Return batches of 256 users with step size 5e-3; ``official``: of 512 with 1e-3, for 500 epochs."""
        if self.variant == "official":
            return TrainingOptions(batch_size=512, epochs=500)
        return TrainingOptions(batch_size=256, lr=5e-3)
