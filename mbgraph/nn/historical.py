r"""Historical embeddings: layers of an earlier step, on top of which the newest layer 0 stands.

With :math:`Z = w_0 X^{(0)} + \sum_{l > 0} w_l X^{(l)}` the second part is remembered as numbers, and later steps add it
to :math:`w_0 X^{(0)}` of their own. They propagate nothing, and the remembered part is not derived.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from mbgraph._kernels import Workspace
from mbgraph.nn.propagation import Rows, propagate, rows_at
from mbgraph.nn.relation import Relation

__all__ = ["TwoPasses", "historical", "on_historical"]


def historical(total: Rows, start: Rows, first: float) -> Rows:
    """Return what layers above the first add to a sum, as numbers.

    Parameters
    ----------
    total, start : (Tensor (U, D), Tensor (I, D))
        The sum of all layers, and layer 0.
    first : float
        Weight of layer 0 in the sum.
    """
    return (total[0] - first * start[0]).detach(), (total[1] - first * start[1]).detach()


def on_historical(start: Rows, above: Rows, first: float) -> Rows:
    """Return the sum of layer 0 and what `historical` gave, at the same rows: ((N, D), (M, D)) twice -> the same."""
    return first * start[0] + above[0], first * start[1] + above[1]


class TwoPasses:
    """A pass over one relation, and one over another that starts from it; above layer 0 both may stand still.

    Parameters
    ----------
    relations : (Relation, Relation)
    weights : sequence of float
        Factors of layers 0..L of either pass.
    layer_norm : bool
        See `mbgraph.nn.propagate`.
    space : Workspace, optional

    Attributes
    ----------
    upper : ((Tensor, Tensor), (Tensor, Tensor)) or None
        What layers 1..L of both passes add, where they stand still: 2 x ((U, D), (I, D)).
    """

    def __init__(
        self,
        relations: tuple[Relation, Relation],
        weights: Sequence[float],
        *,
        layer_norm: bool = False,
        space: Workspace | None = None,
    ) -> None:
        self.relations, self.weights = relations, tuple(weights)
        self._propagate = partial(
            propagate, num_layers=len(weights) - 1, weights=self.weights, layer_norm=layer_norm, space=space
        )
        self.upper: tuple[Rows, Rows] | None = None

    def whole(self, tables: Rows, **options: Any) -> tuple[Rows, Rows]:
        """Return what both passes make of tables: (U, D), (I, D) -> 2 x ((U, D), (I, D)); options of `propagate`."""
        first = self._propagate(self.relations[0], *tables, **options)
        return first, self._propagate(self.relations[1], *first, **options)

    def rows(
        self, tables: Rows, at: Rows, last: tuple[int, int], *, refresh: bool | None = None, **options: Any
    ) -> tuple[Rows, Rows]:
        """Return rows of the first pass, and of the second one at the last few of the same nodes.

        Parameters
        ----------
        tables : (Tensor (U, D), Tensor (I, D))
        at : (int64 tensor (N,), int64 tensor (M,))
        last : (int, int)
            n and m.
        refresh : bool, optional
            None: propagate and derive everything. Otherwise all rows of both passes are computed where it is true or
            nothing is remembered, and remembered layers are added where it is not.
        **options
            Of `propagate`.

        Returns
        -------
        ((Tensor (N, D), Tensor (M, D)), (Tensor (n, D), Tensor (m, D)))
        """
        second = _tails(at, last)
        if refresh is None:
            start = self._propagate(self.relations[0], *tables, **options)
            return rows_at(start, at), self._propagate(self.relations[1], *start, at=second, **options)
        first = self.weights[0]
        if self.upper is None or refresh:
            start, whole = self.whole(tables, **options)
            self.upper = (historical(start, tables, first), historical(whole, start, first))
            return rows_at(start, at), rows_at(whole, second)
        rows = on_historical(rows_at(tables, at), rows_at(self.upper[0], at), first)
        return rows, on_historical(_tails(rows, last), rows_at(self.upper[1], second), first)


def _tails(pair: Rows, counts: tuple[int, int]) -> Rows:
    return pair[0][len(pair[0]) - counts[0] :], pair[1][len(pair[1]) - counts[1] :]
