"""Options of the two-stage model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mbgraph.errors import UsageError
from mbgraph.models.item_cosine import CosineOptions
from mbgraph.models.options import Count, Positive, Share

__all__ = ["TwoStageOptions"]


class TwoStageOptions(CosineOptions):
    """Options of `TwoStage`; those of item cosine are those of its retriever and of the evidence ``paths``."""

    evidence: tuple[str, ...] = ("patterns", "counts", "paths", "kernel", "user", "recency", "dot")
    """What speaks for a pair, by the names under which evidence is registered. ``recency`` says something where the
    auxiliary behaviors have times, ``dot`` where there are ``runs``."""
    runs: tuple[str, ...] = ()
    """Run directories of embedding models, trained on the same train pairs: their dot products are evidence."""
    path_sources: tuple[str, ...] = ("all", "target")
    """What makes items alike in the evidence ``paths``: ``all`` behaviors, weighed; the ``target``; or single auxiliary
    behaviors by name."""
    retrievers: tuple[str, ...] = ("item-cosine",)
    """Where untouched items come from, by the names under which retrievers are registered: ``item-cosine``;
    ``popularity``; ``dot``, the first of ``runs``. Of several a user gets the items of each."""
    retrieved: Annotated[int, Field(ge=0, le=10_000)] = 30
    """Untouched items in each user's list, of every retriever."""
    labels: Literal["auto", "validation", "held-out"] = "auto"
    """Purchases that the weights are fitted on. ``validation``: the validation pairs; ``held-out``: one train pair per
    user, taken out before anything is counted; ``auto``: validation pairs if there are any."""
    held_out: Literal["random", "last"] = "random"
    """Which train pair of a user is held out: any, or the last one, where the target has times."""
    visited_share: Share | None = None
    """Share of future purchases that will be of items the user has touched, where it is assumed: as many held-out
    pairs lose their auxiliary pairs. By default the share is that of the train pairs."""
    fit_users: Annotated[int, Field(ge=1, le=2**31)] = 30_000
    """Users whose lists the weights are fitted on, at most, drawn at random."""
    l2: Positive = 1e-3
    """Weight of the squared norm of the weights in the fit."""
    kernel_dim: Annotated[int, Field(ge=1, le=1024)] = 64
    """Singular vectors that say which users are alike, in the evidence ``kernel``."""
    kernel_users: Count = 300
    """Users of an item who are compared with a candidate's user, at most."""
    head: Literal["logit", "mlp"] = "logit"
    """What ranks the touched items: the weights alone, or a small network, fitted in three folds by user so that none
    has seen its own user's label. How likely a touched item is at all stays with the weights."""
    head_labels: Annotated[int, Field(ge=0, le=100)] = 0
    """Train purchases of each user that the network is fitted on besides the labels, each held out by itself. Each
    takes as long as measuring the evidence of the touched items once more, and knows nothing of ``runs``."""

    @model_validator(mode="after")
    def _agree(self) -> TwoStageOptions:
        if self.head_labels and self.head == "logit":
            raise UsageError(
                "head_labels is what a network is fitted on besides the labels, and head=logit is none",
                "use --set head=mlp, or leave head_labels out",
            )
        if self.head_labels and self.runs:
            raise UsageError(
                f"{self.runs[0]} was trained on the train purchases that head_labels fits the network on",
                "leave runs or head_labels out",
            )
        if "dot" in self.retrievers and not self.runs:
            raise UsageError("retriever 'dot' needs the embeddings of a trained run", "name one: --set runs=RUN")
        return self
