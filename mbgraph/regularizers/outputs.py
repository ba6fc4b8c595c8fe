"""What one training step lays open for regularizers to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from torch import Tensor

from mbgraph.errors import UsageError

__all__ = ["SIDES", "StepOutputs", "Triple", "once"]

T = TypeVar("T")
Triple = tuple[Tensor, Tensor, Tensor]
Given: TypeAlias = T | Callable[[], T] | None
"""A value, a function that makes it when it is first read, or None: the model does not give it."""

SIDES = ("user", "item")


def once(make: Callable[[], T]) -> Callable[[], T]:
    """Return a function that calls ``make`` when it is first called, for entries that others are made of.

    `functools.cache` would do, but breaks the graph of a compiled step.
    """
    kept: list[T] = []

    def made() -> T:
        if not kept:
            kept.append(make())
        return kept[0]

    return made


class StepOutputs:
    """Everything of one training step that a regularizer may use. Any model, or a loop of one's own, can fill it.

    Every entry but ``target`` and ``losses`` may be given as a function without arguments: it is called once, when a
    regularizer first reads the entry. It must not read the outputs that it is in (see `once`): they would keep each
    other, and every tensor of the step, in memory until the garbage collector comes by. An entry that is left out is
    one that the model does not give; an empty one means that this batch has none of it, and a term made of it
    contributes nothing.

    Parameters
    ----------
    target : str
        The target behavior.
    losses : mapping of str to Tensor ()
        The model's own terms, by name.
    risks : mapping of str to Tensor ()
        Mean ranking loss per environment (usually a behavior); those without a row in the batch are absent.
    margins : mapping of str to Tensor (B_b,) or (B_b, n)
        Score of the positive minus score of the negative item, per environment; n negatives make n columns.
    row_weights : mapping of str to Tensor (B_b,)
        Weights of the rows of ``margins`` and ``triples``; all 1 where the key is missing.
    anchors : mapping of str to mapping of str to Tensor (N, D)
        Per side (``"user"``, ``"item"``) and behavior, embeddings of the same N distinct nodes, row by row.
    anchor_weights : mapping of str to mapping of str to Tensor (N,)
        Per side and behavior, what each anchor counts; 0 where the node lacks the behavior, 1 where a key is missing.
    alignment : mapping of str to mapping of str to Tensor (N,)
        Per side and behavior, how much the behavior says about what each anchor buys, see
        `mbgraph.nn.alignment_weights`.
    alignment_levels : mapping of str to float
        The same per behavior, averaged over all users; 1 for the target.
    views : mapping of str to (Tensor (N, D), Tensor (N, D))
        Per side, two encodings of the same N distinct nodes.
    nodes : mapping of str to mapping of str to Tensor
        Per side and behavior, embeddings of all nodes: (U, D) or (I, D). Row numbers are node numbers.
    similar : mapping of str to int64 tensor (N, k)
        Per side, for each anchor the numbers of nodes that are no negatives of it, -1 where there are fewer than k.
    triples : mapping of str to (Tensor (B_b, D), Tensor (B_b, D), Tensor (B_b, D) or (B_b, n, D))
        Per behavior, embeddings of user, positive and negative item of every row.
    ego : mapping of str to the same
        Like ``triples``, but rows of the embedding tables (layer 0).
    tables : sequence of Tensor
        All embedding tables, user table first.
    parameters : mapping of str to Tensor
        Other parameters that a norm may act on: transformations, gates.
    """

    def __init__(
        self,
        target: str,
        *,
        losses: Mapping[str, Tensor] | None = None,
        risks: Given[Mapping[str, Tensor]] = None,
        margins: Given[Mapping[str, Tensor]] = None,
        row_weights: Given[Mapping[str, Tensor]] = None,
        anchors: Given[Mapping[str, Mapping[str, Tensor]]] = None,
        anchor_weights: Given[Mapping[str, Mapping[str, Tensor]]] = None,
        alignment: Given[Mapping[str, Mapping[str, Tensor]]] = None,
        alignment_levels: Given[Mapping[str, float]] = None,
        views: Given[Mapping[str, tuple[Tensor, Tensor]]] = None,
        nodes: Given[Mapping[str, Mapping[str, Tensor]]] = None,
        similar: Given[Mapping[str, Tensor]] = None,
        triples: Given[Mapping[str, Triple]] = None,
        ego: Given[Mapping[str, Triple]] = None,
        tables: Given[Sequence[Tensor]] = None,
        parameters: Given[Mapping[str, Tensor]] = None,
    ) -> None:
        self.target, self.losses = target, dict(losses or {})
        self._entries: dict[str, Any] = {
            "risks": risks,
            "margins": margins,
            "row_weights": row_weights,
            "anchors": anchors,
            "anchor_weights": anchor_weights,
            "alignment": alignment,
            "alignment_levels": alignment_levels,
            "views": views,
            "nodes": nodes,
            "similar": similar,
            "triples": triples,
            "ego": ego,
            "tables": tables,
            "parameters": parameters,
        }

    def get(self, name: str) -> Any:
        """Return an entry, None where the model does not give it."""
        value = self._entries[name]
        if callable(value):
            value = self._entries[name] = value()
        return value

    def need(self, name: str, regularizer: str) -> Any:
        """Return an entry; raises `UsageError` where the model does not give it."""
        value = self.get(name)
        if value is None:
            raise UsageError(
                f"{regularizer} needs {name!r}, which this model does not give",
                f"leave it out: --regularizer {regularizer}:weight=0",
            )
        return value

    def __getattr__(self, name: str) -> Any:
        if name in vars(self).get("_entries", ()):
            value = self.get(name)
            return {} if value is None else value
        raise AttributeError(f"a step has no entry {name!r}")
