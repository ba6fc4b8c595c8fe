r"""The contrast of behaviors or views as a term of the objective (RMBRec's RRM, Eq. 3-4; SimGCL; MBSSL)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mbgraph.errors import UsageError
from mbgraph.regularizers.base import REGULARIZERS, Regularizer
from mbgraph.regularizers.contrast import infonce, infonce_among, nt_xent
from mbgraph.regularizers.outputs import StepOutputs

__all__ = ["InfoNCE", "infonce", "infonce_among", "nt_xent"]


@REGULARIZERS.register("infonce")
class InfoNCE(Regularizer):
    """Align every auxiliary behavior's embeddings of a node with the target's, or two views of it (SimGCL).

    The anchor side is the target behavior, or the first view.
    """

    name: ClassVar[str] = "infonce"

    temperature: Annotated[float, Field(gt=0, le=1_000_000)] = 0.07
    """Divides the cosine."""
    temperatures: tuple[Annotated[float, Field(gt=0, le=1_000_000)], ...] = ()
    """Temperatures of the first auxiliary behaviors, in order; those that follow take ``temperature``."""
    direction: Literal["both", "anchor", "other"] = "both"
    """Whose rows pick among the other side's rows; ``both`` is the mean of the two."""
    negatives: Literal["cross", "intra"] = "cross"
    """Candidates of a row: the other side's rows, or the rows of its own side."""
    include_positive: bool = True
    """Whether the positive stands in the denominator."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over the nodes."""
    reduce_behaviors: Literal["sum", "mean"] = "sum"
    """Over the auxiliary behaviors: the published RMBRec code sums, its Eq. 4 averages."""
    supported_only: bool = False
    """Contrast only nodes that have an edge in the auxiliary behavior. Without one the auxiliary embedding is the
    layer-0 row, which says nothing about the behavior."""
    weighted: bool = False
    """Count each node by the weight that the model gives it in the auxiliary behavior."""
    adaptive: bool = False
    """Count each node by how much the auxiliary behavior says about what it buys (`mbgraph.nn.alignment_weights`), 0
    where it lacks the behavior, and divide a mean by the number of nodes: what says little pulls little."""
    between: Literal["behaviors", "views"] = "behaviors"
    """What is contrasted: the target with every auxiliary behavior, or two views of the model."""
    side: Literal["user", "item"] = "user"
    """Whose embeddings."""
    candidates: Literal["batch", "block", "all"] = "batch"
    """Who stands in the denominator: the nodes of the batch; those of the same block of the batch, which costs time and
    memory linear in the batch; or all nodes but those that the model calls similar, by the anchor's rows only."""
    zero_similar: bool = False
    """With all nodes as candidates: count a similar node as a cosine of 0 (published MBSSL) instead of not at all."""
    block: Annotated[int, Field(ge=1, le=2**24)] = 1024
    """Rows per block, with ``block`` or all nodes as candidates."""

    @model_validator(mode="after")
    def _agree(self) -> InfoNCE:
        if self.candidates == "all" and (self.negatives != "cross" or not self.include_positive):
            raise UsageError(
                "infonce among all nodes knows only cross negatives with the positive among them",
                "leave negatives and include_positive out",
            )
        if self.adaptive and (self.weighted or self.between == "views"):
            raise UsageError(
                "infonce counts nodes of behaviors either by the model's weights or by their alignment",
                "leave weighted, between=views or adaptive out",
            )
        return self

    def _term(self, anchor: Tensor, other: Tensor, weights: Tensor | None, temperature: float) -> Tensor:
        return infonce(
            anchor,
            other,
            temperature=temperature,
            direction=self.direction,
            negatives=self.negatives,
            include_positive=self.include_positive,
            reduction=self.reduction,
            weights=weights,
            block=self.block if self.candidates == "block" else None,
        )

    def in_blocks(self, rows: int) -> InfoNCE:
        """Return the contrast within blocks of so many nodes of the batch, where it was one of the whole batch."""
        return self.replace(candidates="block", block=rows) if self.candidates == "batch" else self

    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the sum (or mean) over auxiliary behaviors, a 0-dimensional tensor."""
        if self.between == "views":
            one, two = self._of_side(outputs, "views")
            return self._term(one, two, None, self.temperature)
        anchors = self._of_side(outputs, "anchors")
        auxiliary = [behavior for behavior in anchors if behavior != outputs.target]
        if not auxiliary:
            raise UsageError(
                "infonce between behaviors needs a model that encodes an auxiliary behavior",
                f"leave it out: --regularizer {self.name}:weight=0",
            )
        given, left = len(self.temperatures), len(auxiliary) - len(self.temperatures)
        if left < 0:
            raise UsageError(
                f"temperatures of infonce has {given} numbers for {len(auxiliary)} auxiliary behaviors",
                f"give at most one for each of {', '.join(auxiliary)}",
            )
        temperatures = (*self.temperatures, *[self.temperature] * left)
        terms = [
            self._behavior(outputs, anchors[outputs.target], anchors[behavior], behavior, temperature)
            for behavior, temperature in zip(auxiliary, temperatures, strict=True)
        ]
        total = torch.stack(terms).sum()
        return total if self.reduce_behaviors == "sum" else total / len(terms)

    def _of_side(self, outputs: StepOutputs, entry: str) -> Any:
        given = outputs.need(entry, self.name)
        if self.side not in given:
            raise UsageError(
                f"infonce needs {entry} of {self.side}s, which this model does not give",
                f"choose side={' or '.join(given)}" if given else "use another regularizer",
            )
        return given[self.side]

    def _behavior(
        self, outputs: StepOutputs, anchor: Tensor, other: Tensor, behavior: str, temperature: float
    ) -> Tensor:
        weights = outputs.anchor_weights.get(self.side, {}).get(behavior)  # (N,)
        similar = outputs.similar.get(self.side) if self.candidates == "all" else None
        supported = None
        if self.supported_only and weights is not None:
            supported = weights > 0
            anchor, other, weights = anchor[supported], other[supported], weights[supported]
            similar = None if similar is None else similar[supported]
        used = weights if self.weighted else None
        if self.adaptive:
            used = self._aligned(outputs, behavior, supported)
        if self.adaptive and self.reduction == "mean":
            # a weighted mean divides by the weights, which would give back what they take away
            share = used.mean() if used is not None and len(used) else 1.0
            return share * self._one(outputs, anchor, other, behavior, temperature, similar, used)
        return self._one(outputs, anchor, other, behavior, temperature, similar, used)

    def _aligned(self, outputs: StepOutputs, behavior: str, supported: Tensor | None) -> Tensor:
        weights: Tensor = self._of_side(outputs, "alignment")[behavior]  # (N,)
        return weights if supported is None else weights[supported]

    def _one(
        self,
        outputs: StepOutputs,
        anchor: Tensor,
        other: Tensor,
        behavior: str,
        temperature: float,
        similar: Tensor | None,
        used: Tensor | None,
    ) -> Tensor:
        if self.candidates != "all":
            return self._term(anchor, other, used, temperature)
        return infonce_among(
            anchor,
            other,
            self._of_side(outputs, "nodes")[behavior],
            temperature=temperature,
            left_out=similar,
            zero_left_out=self.zero_similar,
            reduction=self.reduction,
            weights=used,
            block=self.block,
        )
