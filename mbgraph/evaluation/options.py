"""How models are ranked."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mbgraph.data.masks import MASKS, Mask
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.evaluation.metrics import METRICS
from mbgraph.schema import Section

__all__ = ["MASKS", "TIES", "EvaluationOptions", "Mask", "Ties"]

Ties = Literal["realistic", "optimistic", "pessimistic"]
TIES: tuple[str, ...] = Ties.__args__  # type: ignore[attr-defined]


class EvaluationOptions(Section):
    """How models are ranked, and the figure they are selected by."""

    called = "the evaluation options"

    metric: str = "HR@10"
    """Validation metric that decides the best epoch, for example ``HR@10`` or ``NDCG@20``."""
    k: tuple[Annotated[int, Field(ge=1, le=10_000_000)], ...] = (10, 20)
    """Cut-offs of the reported metrics; those beyond the catalogue are cut to its size."""
    mask: Mask = "train-target"
    """Items that are no candidates: the user's train items of the target (``train-target``), also the validation items
    (``train+valid-target``), everything touched in train (``all-behaviors``), or ``none``."""
    ties: Ties = "realistic"
    """Rank of equal scores, see `mbgraph.evaluation.ranking.rank_from_counts`."""

    @model_validator(mode="after")
    def _check(self) -> EvaluationOptions:
        if not self.k:
            raise UsageError("k of the evaluation options is empty", "give at least one cut-off, such as k=[10]")
        name, _, cutoff = self.metric.partition("@")
        if name not in METRICS:
            raise UnknownNameError("metric", name, METRICS)
        if not re.fullmatch(r"[1-9][0-9]{0,8}", cutoff):
            raise UsageError(f"metric {self.metric!r} has no cut-off", "write it as HR@10 or NDCG@20")
        return self

    @property
    def metric_cutoff(self) -> int:
        """The cut-off of `metric`."""
        return int(self.metric.partition("@")[2])
