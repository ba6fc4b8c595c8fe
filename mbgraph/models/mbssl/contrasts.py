"""Contrasts of the nodes of a batch's target pairs with all nodes, or with each other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mbgraph.models.mbssl.options import MBSSLOptions
from mbgraph.models.ragged import UserBatch
from mbgraph.regularizers import infonce_among

__all__ = ["Contrasts"]


class Contrasts:
    """What is contrasted in one step, and with whom.

    Parameters
    ----------
    options : MBSSLOptions
    batch : UserBatch
    target : str
    similar : mapping of str to int64 tensor (N, k)
        Per side, the nodes that are too similar to each node, -1 where there are fewer.

    Attributes
    ----------
    nodes : mapping of str to int64 tensor (n,)
        Per side, the distinct nodes of the batch's target pairs.
    """

    def __init__(self, options: MBSSLOptions, batch: UserBatch, target: str, similar: Mapping[str, Tensor]) -> None:
        self.options, self.similar = options, similar
        distinct = {side: batch.distinct(side, target) for side in ("user", "item")}  # 2 x ((n,), (n,))
        self.nodes = {side: nodes for side, (nodes, _) in distinct.items()}
        self.counts = {side: counts for side, (_, counts) in distinct.items()}

    def similar_to(self, side: str) -> Tensor:
        """Return the nodes that are too similar to those of the batch: int64 (n, k)."""
        return self.similar[side].to(self.nodes[side].device)[self.nodes[side]]

    def total(self, pairs: Mapping[str, tuple[Tensor, Tensor]], *, similar: bool) -> Tensor:
        """Return the sum of `one_side` over both sides: 2 x ((N, D), (M, D)) -> ()."""
        return torch.stack([self.one_side(side, *pair, similar=similar) for side, pair in pairs.items()]).sum()

    def one_side(self, side: str, anchor: Tensor, other: Tensor, *, similar: bool) -> Tensor:
        """Return the sum over the batch's target pairs of one side's contrast: (N, D) of all nodes, (M, D) -> ().

        With ``similar``, nodes that are too similar are no negatives.
        """
        nodes, options = self.nodes[side], self.options
        left_out = self.similar_to(side) if similar and options.candidates == "all" else None
        among = other if options.candidates == "all" else other[nodes]
        if options.zero_item and side == "item":
            among = nn.functional.pad(among, (0, 0, 0, 1))
        return infonce_among(
            anchor[nodes], other[nodes], among, temperature=options.temperature, left_out=left_out,
            zero_left_out=options.zero_similar, reduction="sum", weights=self.counts[side].to(anchor),
            block=options.block,
        )  # fmt: skip
