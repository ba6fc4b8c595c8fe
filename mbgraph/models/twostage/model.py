"""The two-stage model: short lists, evidence on every pair of them, and weights that people can read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mbgraph.errors import DataError, UsageError
from mbgraph.models.base import MODELS, Recommender
from mbgraph.models.twostage import logit
from mbgraph.models.twostage.candidates import LISTS, Candidates, candidates_of, seen_of
from mbgraph.models.twostage.counts import UserLevel
from mbgraph.models.twostage.facts import Embeddings, Facts, Setting
from mbgraph.models.twostage.folds import Rerank, cross_fitted, fold_of
from mbgraph.models.twostage.head import Head, SeenLists
from mbgraph.models.twostage.labels import Labels, labels_of, more_labels
from mbgraph.models.twostage.options import TwoStageOptions
from mbgraph.models.twostage.retrievers import RETRIEVERS
from mbgraph.models.twostage.rows import Layout, Measured, Scale, Weighing
from mbgraph.models.twostage.scorer import TwoStageScorer, block_of_users
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.random import stream
from mbgraph.typing import FloatArray, IntArray

if TYPE_CHECKING:
    from mbgraph.data.dataset import MultiBehaviorDataset

__all__ = ["Problem", "TwoStage"]

_FEW = 5  # labels per weight, below which a notice says so
_KEPT = ("weight", "error", "offset", "mean", "spread")


@dataclass(frozen=True)
class Problem:
    """What the weights are fitted to.

    Attributes
    ----------
    choices : Choices
        The lists of users with a label, and which pairs are labels.
    labels : Labels
    users : int64 array (n,)
        The users, ascending.
    pairs : Candidates
        Their lists.
    found : dict of str to int
        Labels on each list, and ``missed``.
    scale : Scale
    facts : Facts
        Of the graph without the labels.
    fold : int64 array (n,)
        Each user's fold.
    """

    choices: logit.Choices
    labels: Labels
    users: IntArray
    pairs: Candidates
    found: dict[str, int]
    scale: Scale
    facts: Facts
    fold: IntArray


@MODELS.register("twostage")
class TwoStage(Recommender):
    """Rank what a user has seen and what a retriever found by weighed evidence, in one list.

    It learns in one go, a weight per piece of evidence and list, by which any recommendation can be explained.
    """

    name = "twostage"
    trainable = False
    learns = True
    needs_auxiliary = True
    Options = TwoStageOptions
    options: TwoStageOptions

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        for name in self.options.retrievers:
            RETRIEVERS.get(name)  # an unknown one is told at once
        self.layout = Layout.of(Setting.of(self.relations, self.options))
        for name in LISTS:
            width = len(self.layout.columns(name))
            for kept in _KEPT:
                own = width if kept in ("weight", "error") else width - (name == "retrieved")
                self.register_buffer(f"{kept}_{name}", torch.zeros(own, dtype=torch.float64))
        self.head: Head | None = None
        if self.options.head == "mlp":
            widths = (len(self.layout.columns("seen")), len(UserLevel.columns(self.layout.setting)))
            self.head = Head(*widths, self.num_users, self.rng)
        self.register_buffer("learned_on", torch.zeros((), dtype=torch.int64))
        self.runs: dict[str, Embeddings] = {}
        self._kept_facts: Facts | None = None

    # --- learning ---------------------------------------------------------------------------------------------------

    def attach(self, runs: Mapping[str, Recommender]) -> None:
        """Take the embeddings of trained models, by the names that ``runs`` has for them.

        Raises
        ------
        UsageError
            If a model has no embeddings.
        """
        self.runs = {}
        for name, model in runs.items():
            with torch.no_grad():
                encoded = model.encode()
            self.runs[name] = (encoded.users.float().numpy(force=True), encoded.items.float().numpy(force=True))
        self._kept_facts = None

    def learn(self, dataset: MultiBehaviorDataset) -> dict[str, Any]:
        """Fit the weights, and return what they are.

        Raises
        ------
        DataError
            If a behavior is the answer, no label stands on a list, or there is nothing to make a label of.
        UsageError
            If the options do not fit the data, or a run was trained on the labels.
        """
        problem = self.problem(dataset)
        choices, labels, found = problem.choices, problem.labels, problem.found
        kept = choices.labels > 0
        if not kept.any():
            raise DataError(
                f"none of the {len(labels.users)} labels stands on its user's lists",
                "retrieve more items: --set retrieved=100",
            )
        fitted = logit.fit(choices.of(kept), self.options.l2)
        self._keep(fitted, problem.scale)
        rerank = self._learn_head(problem, dataset)
        self.get_buffer("learned_on").fill_(int(choices.labels.sum()))
        return {
            "labels": {
                "source": labels.source,
                "pairs": len(labels.users),
                "visited_share": labels.visited,
                "users": len(problem.users),
                **found,
            },
            "notices": _notices(choices, found),
            "loss": fitted.loss,
            "steps": fitted.steps,
            "cross_fitted": cross_fitted(choices, self.options.l2, problem.fold, fitted.weights, rerank),
            "weights": self.weights(),
        }

    def problem(self, dataset: MultiBehaviorDataset) -> Problem:
        """Return what the weights are fitted to; raises what `learn` does."""
        self.check_dataset(dataset)
        self._check_runs()
        labels = labels_of(dataset, self.relations, self.options, self.rng)
        if labels.source == "held-out" and self.runs:
            raise UsageError(
                f"{next(iter(self.runs))} was trained on the purchases that labels=held-out fits the weights on",
                "hold them out for both: fit both with --validation holdout",
            )
        facts = self.facts() if labels.relations is self.relations else self._new_facts(labels.relations)
        weighing = Weighing(facts, self.layout)
        users = self._fit_users(labels, stream(self.rng, "fit"))
        pairs, measured = _gathered(weighing, users, candidates_of)
        scale = weighing.scale(measured)
        choices, found = _choices(users, pairs, weighing.rows(measured, scale), labels)
        return Problem(choices, labels, users, pairs, found, scale, facts, fold_of(self.num_users, self.rng)[users])

    def _fit_users(self, labels: Labels, generator: np.random.Generator) -> IntArray:
        users = np.unique(labels.users)
        if len(users) > self.options.fit_users:
            users = np.sort(generator.permutation(users)[: self.options.fit_users])
        return users

    def seen_lists(self, dataset: MultiBehaviorDataset, number: int) -> SeenLists:
        """Return seen lists with one more train purchase of every user as labels, which no evidence knows of.

        Parameters
        ----------
        dataset : MultiBehaviorDataset
        number : int
            From 1 on; each draws others.
        """
        labels = more_labels(self.relations, self.options, self.rng, dataset.name, number)
        facts = self._new_facts(labels.relations)
        weighing = Weighing(facts, self.layout)
        users = self._fit_users(labels, stream(self.rng, "fit", number))
        pairs, measured = _gathered(weighing, users, seen_of)
        choices, _ = _choices(users, pairs, weighing.rows(measured, weighing.scale(measured)), labels)
        return SeenLists(pairs.users, choices.rows[0], UserLevel(facts).measure(pairs), choices.chosen[0])

    def _learn_head(self, problem: Problem, dataset: MultiBehaviorDataset) -> Rerank | None:
        """Fit the head, if there is one, and return how it ranks the seen lists of some of the users."""
        if self.head is None:
            return None
        seen, rows, own = problem.pairs[problem.pairs.seen], problem.choices.rows[0], self.head
        level = UserLevel(problem.facts).measure(seen)
        more = [self.seen_lists(dataset, number) for number in range(1, self.options.head_labels + 1)]
        own.learn(SeenLists(seen.users, rows, level, problem.choices.chosen[0]), *more)

        def rerank(asked: np.ndarray, weighted: FloatArray) -> FloatArray:
            place = asked[problem.choices.owner[0]]
            return own.rerank(seen.users[place], rows[place], level[place], weighted)

        return rerank

    def _check_runs(self) -> None:
        missing = [name for name in self.options.runs if name not in self.runs]
        if missing:
            raise UsageError(
                f"the embeddings of run {missing[0]!r} are not there", "attach them: model.attach({name: model})"
            )

    def _keep(self, fitted: logit.Fitted, scale: Scale) -> None:
        start = 0
        for name in LISTS:
            width = len(self.layout.columns(name))
            values = {
                "weight": fitted.weights[start : start + width],
                "error": fitted.errors[start : start + width],
                **{kept: getattr(scale, kept)[name] for kept in ("offset", "mean", "spread")},
            }
            for kept, value in values.items():
                self.get_buffer(f"{kept}_{name}").copy_(torch.from_numpy(value))
            start += width

    # --- what was learned -------------------------------------------------------------------------------------------

    def _array(self, kept: str, name: str) -> FloatArray:
        return self.get_buffer(f"{kept}_{name}").numpy(force=True)

    def _scale(self) -> Scale:
        return Scale(*({name: self._array(kept, name) for name in LISTS} for kept in ("offset", "mean", "spread")))

    def weights(self) -> list[dict[str, Any]]:
        """Return every weight with its list, evidence, name and standard error, by list in the order of the columns."""
        return [
            {"list": name, "evidence": evidence, "name": column, "weight": weight, "error": error}
            for name in LISTS
            for (evidence, column), weight, error in zip(
                self.layout.columns(name),
                self._array("weight", name).tolist(),
                self._array("error", name).tolist(),
                strict=True,
            )
        ]

    def _check_learned(self) -> None:
        if not int(self.get_buffer("learned_on")):
            raise UsageError("the model has not learned yet", "call model.learn(dataset), or use mbgraph fit")

    # --- use --------------------------------------------------------------------------------------------------------

    def _new_facts(self, relations: Relations) -> Facts:
        return Facts(relations, self.options, self.rng, self.runs)

    def facts(self, graph: GraphLike | None = None) -> Facts:
        """Return what evidence may ask of a graph; of the model's own it is computed once."""
        relations = self.other_relations(graph)
        if relations is not self.relations:
            return self._new_facts(relations)
        if self._kept_facts is None:
            self._kept_facts = self._new_facts(relations)
        return self._kept_facts

    def scorer(self, graph: GraphLike | None = None) -> TwoStageScorer:
        """Return the scorer of a graph, by the weights that were learned."""
        facts = self.facts(graph)
        self._check_learned()
        self._check_runs()
        weighing, scale, level = Weighing(facts, self.layout), self._scale(), UserLevel(facts)

        def score(pairs: Candidates) -> FloatArray:
            rows = weighing.rows(weighing.measured(pairs), scale)
            values = np.empty(len(pairs))
            for name in LISTS:
                values[pairs.on(name)] = rows[name].astype(np.float64) @ self._array("weight", name)
            if self.head is not None:
                seen = pairs[pairs.seen]
                values[pairs.seen] = self.head.rerank(seen.users, rows["seen"], level.measure(seen), values[pairs.seen])
            return values

        return TwoStageScorer(facts, score)

    def explain(self, users: IntArray, items: IntArray) -> list[dict[str, float]]:
        """Return what speaks for pairs: (N,), (N,) -> per pair weight times standardised evidence, largest first.

        Pairs that stand on no list, which are ranked by item cosine alone, have nothing.
        """
        self._check_learned()
        self._check_runs()
        weighing, scale = Weighing(self.facts(), self.layout), self._scale()
        made: list[dict[str, float]] = [{} for _ in range(len(users))]
        size = 4096
        distinct = np.unique(users)
        for start in range(0, len(distinct), size):
            pairs = candidates_of(weighing.facts, distinct[start : start + size])
            keys = pairs.users * self.num_items + pairs.items
            asked = np.isin(keys, users * np.int64(self.num_items) + items)
            pairs, keys = pairs[asked], keys[asked]
            rows = weighing.rows(weighing.measured(pairs), scale)
            found: dict[int, dict[str, float]] = {}
            for name in LISTS:
                parts = rows[name] * self._array("weight", name)  # (P_l, F_l)
                columns = [column for _, column in self.layout.columns(name)]
                for key, values in zip(keys[pairs.on(name)].tolist(), parts.tolist(), strict=True):
                    own = sorted(zip(columns, values, strict=True), key=lambda each: -each[1])
                    found[key] = {column: value for column, value in own if value}
            for place, key in enumerate((users * np.int64(self.num_items) + items).tolist()):
                if key in found:
                    made[place] = found[key]
        return made


def _gathered(
    weighing: Weighing, users: IntArray, lists: Callable[[Facts, IntArray], Candidates]
) -> tuple[Candidates, Measured]:
    """Return the lists of users and what is measured of their pairs, a block of users at a time."""
    size = block_of_users(weighing.facts)
    parts = [lists(weighing.facts, users[start : start + size]) for start in range(0, len(users), size)]
    measured = [weighing.measured(part) for part in parts]
    return Candidates.joined(parts), {name: np.concatenate([part[name] for part in measured]) for name in LISTS}


def _choices(
    users: IntArray, pairs: Candidates, rows: dict[str, FloatArray], labels: Labels
) -> tuple[logit.Choices, dict[str, int]]:
    """Return the users' lists with their labels, and how many labels stand on each list and on none."""
    num_items = np.int64(labels.relations.num_items)
    mine = np.isin(labels.users, users)
    keys = np.sort(labels.users[mine] * num_items + labels.items[mine])
    owner = np.searchsorted(users, pairs.users)
    hit = np.isin(pairs.users * num_items + pairs.items, keys).astype(np.float64)
    found = {name: int(hit[pairs.on(name)].sum()) for name in LISTS}
    choices = logit.Choices(
        [owner[pairs.on(name)] for name in LISTS],
        [rows[name] for name in LISTS],
        [hit[pairs.on(name)] for name in LISTS],
        len(users),
    )
    return choices, {**found, "missed": len(keys) - sum(found.values())}


def _notices(choices: logit.Choices, found: dict[str, int]) -> list[str]:
    """Return what people should know before they read the weights, a line each."""
    told = []
    labels = sum(found[name] for name in LISTS)
    if labels < _FEW * choices.width:
        told.append(f"only {labels} labels for {choices.width} weights: most of what is known is the penalty")
    for name, rows in zip(LISTS, choices.rows, strict=True):
        if not len(rows):
            told.append(f"no user has an item on the {name} list, whose weights are 0")
        elif not found[name]:
            told.append(f"no label stands on the {name} list: its weights only say what was not bought")
    return told
