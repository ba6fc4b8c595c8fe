"""Figures of the two-stage model and of what each kind of evidence is worth, from one pass over the evidence.

    python benchmarks/twostage.py taobao15k --run runs/taobao15k-lightgcn-union-s1 --test default best
    python benchmarks/twostage.py beibei --seeds 0 1 2

Evidence is measured once per dataset; each row of the tables then fits on some of its columns, and ranks as
`mbgraph fit DATASET --model twostage` does. Every row is read on labels, each user's with weights of other users:
benchmarks/results/twostage_labels.csv. The test pairs are ranked for the rows that --test names, and no others, where
``best`` is the row with the largest NDCG@10 on labels: benchmarks/results/twostage.csv.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mbgraph as mb
from mbgraph.bench.report import add_rows
from mbgraph.data.perturb import perturb
from mbgraph.data.splits import merge_split
from mbgraph.models import TwoStage
from mbgraph.models.twostage import logit
from mbgraph.models.twostage.candidates import LISTS, Candidates
from mbgraph.models.twostage.counts import UserLevel
from mbgraph.models.twostage.folds import FOLDS, within_lists
from mbgraph.models.twostage.head import Head, SeenLists
from mbgraph.models.twostage.model import Problem
from mbgraph.models.twostage.rows import Measured, Weighing
from mbgraph.models.twostage.scorer import TwoStageScorer
from mbgraph.run import Run
from mbgraph.typing import FloatArray, IntArray

RESULTS = Path(__file__).parent / "results"
FIGURES = ("HR@10", "NDCG@10", "HR@20", "NDCG@20")
PROTOCOLS = ("P1", "P2")


class Remembering(Weighing):
    """Measures each block of users once."""

    def __init__(self, facts: Any, layout: Any) -> None:
        super().__init__(facts, layout)
        self.known: dict[tuple[int, int, int], Measured] = {}

    def measured(self, pairs: Candidates) -> Measured:
        """See `Weighing.measured`."""
        key = (int(pairs.users[0]), int(pairs.users[-1]), len(pairs)) if len(pairs) else (0, 0, 0)
        if key not in self.known:
            self.known[key] = super().measured(pairs)
        return self.known[key]


class Ranker(TwoStageScorer):
    """Computes the order behind the lists once for all rows of the table."""

    shared: dict[Any, FloatArray]

    def alike(self, users: IntArray) -> FloatArray:
        """See `TwoStageScorer.alike`."""
        key = (len(users), int(users[0]), int(users[-1]))
        if key not in self.shared:
            self.shared[key] = super().alike(users)
        return self.shared[key]


class Measurement:
    """One dataset, its evidence, and the rows of the table that it gives."""

    def __init__(self, ds: mb.MultiBehaviorDataset, options: dict[str, Any], runs: tuple[str, ...], seed: int) -> None:
        self.ds, self.seed = ds, seed
        sources = ("all", "target", *ds.auxiliary)
        self.model = TwoStage(
            ds.graph, ds.target, behaviors=ds.behaviors, rng=seed, runs=runs, path_sources=sources, **options
        )
        self.model.attach({name: Run.load(name).model() for name in runs})
        self.problem: Problem = self.model.problem(ds)
        self.columns = [self.model.layout.columns(name) for name in LISTS]
        self.l2 = self.model.options.l2
        self.graphs: dict[str, tuple[Any, Remembering]] = {}
        self.shared: dict[str, dict[Any, FloatArray]] = {}
        self.known: list[SeenLists] = []

    def chosen(self, kinds: set[str], more: bool) -> list[np.ndarray]:
        """Return which columns of each list belong to some kinds of evidence; the intercept always does.

        Paths by the items of single auxiliary behaviors are there where ``more`` is asked for.
        """
        single = tuple(f" by {name}" for name in self.model.layout.setting.auxiliary)

        def wanted(kind: str, name: str) -> bool:
            return kind == "retrieved" or (kind in kinds and (more or not name.endswith(single)))

        return [np.array([wanted(*each) for each in own], bool) for own in self.columns]

    def part(self, columns: list[np.ndarray]) -> logit.Choices:
        """Return the problem with some columns."""
        whole = self.problem.choices
        rows = [rows[:, own] for rows, own in zip(whole.rows, columns, strict=True)]
        return logit.Choices(whole.owner, rows, whole.chosen, whole.count)

    def lists(self, number: int) -> SeenLists:
        """Return the seen lists of the labels (0), or of more of them."""
        while len(self.known) <= number:
            self.known.append(self._lists(len(self.known)))
        return self.known[number]

    def _lists(self, number: int) -> SeenLists:
        if number:
            return self.model.seen_lists(self.ds, number)
        seen, choices = self.problem.pairs[self.problem.pairs.seen], self.problem.choices
        level = UserLevel(self.problem.facts).measure(seen)
        return SeenLists(seen.users, choices.rows[0], level, choices.chosen[0])

    def head(self, columns: list[np.ndarray], more: int) -> tuple[Head, FloatArray]:
        """Return a fitted head and what the users of the seen lists are like."""
        sets = [
            SeenLists(own.users, own.rows[:, columns[0]], own.level, own.chosen)
            for own in map(self.lists, range(more + 1))
        ]
        level = sets[0].level
        head = Head(int(columns[0].sum()), level.shape[1], self.model.num_users, self.seed)
        head.learn(*sets)
        return head, level

    def on_labels(
        self, columns: list[np.ndarray], mlp: bool, more: int
    ) -> tuple[dict[str, float], FloatArray, Head | None]:
        """Return figures on labels, each user's with weights of other users, and the weights of all of them."""
        choices, problem = self.part(columns), self.problem
        labelled = choices.labels > 0
        fitted = logit.fit(choices.of(labelled), self.l2)
        head, level = self.head(columns, more) if mlp else (None, None)
        seen_users = problem.pairs.users[problem.pairs.seen]
        found = {f"{group} {name}": np.zeros(choices.count) for group in ("all", "discovery") for name in FIGURES}
        for number in range(FOLDS):
            own = problem.fold == number
            weights = choices.split(logit.fit(choices.of(labelled & ~own), self.l2, fitted.weights).weights)
            part = choices.of(own)
            scores = [rows @ each for rows, each in zip(part.rows, weights, strict=True)]
            if head is not None and level is not None:
                mine = own[choices.owner[0]]
                scores[0] = head.rerank(seen_users[mine], part.rows[0], level[mine], scores[0])
            nobody = np.empty(0, np.int64)
            untouched = logit.Choices(
                [nobody, part.owner[1]], [part.rows[0][:0], part.rows[1]], [np.empty(0), part.chosen[1]], part.count
            )
            for group, lists, own_scores in (("all", part, scores), ("discovery", untouched, [np.empty(0), scores[1]])):
                for name, per_user in within_lists(lists, own_scores).items():
                    found[f"{group} {name}"][own] = per_user
        visited = np.bincount(choices.owner[0], choices.chosen[0], choices.count) > 0
        told = {}
        for name in FIGURES:
            told[f"labels {name}"] = float(found[f"all {name}"].mean())
            for group, users in (("visited", visited), ("unvisited", ~visited)):
                told[f"labels {group} {name}"] = float(found[f"all {name}"][users].mean()) if users.any() else np.nan
            told[f"labels discovery {name}"] = (
                float(found[f"discovery {name}"][~visited].mean()) if (~visited).any() else np.nan
            )
        told["labels loss"] = fitted.loss
        return told, fitted.weights, head

    def on_test(
        self, protocol: str, columns: list[np.ndarray], weights: FloatArray, head: Head | None
    ) -> dict[str, float]:
        """Return figures on the test pairs: all, visited, unvisited, and unvisited among untouched items."""
        ds = self.ds if protocol == "P1" else merge_split(self.ds, "valid")
        if protocol not in self.graphs:
            facts = self.model.facts(ds.graph if protocol == "P2" else None)
            self.graphs[protocol] = (facts, Remembering(facts, self.model.layout))
            self.shared[protocol] = {}
        facts, weighing = self.graphs[protocol]
        level = UserLevel(facts)
        own = self.part(columns).split(weights)

        def score(pairs: Candidates) -> FloatArray:
            rows = weighing.rows(weighing.measured(pairs), self.problem.scale)
            values = np.empty(len(pairs))
            for name, kept, each in zip(LISTS, columns, own, strict=True):
                values[pairs.on(name)] = rows[name][:, kept].astype(np.float64) @ each
            if head is not None:
                seen = pairs[pairs.seen]
                values[pairs.seen] = head.rerank(
                    seen.users, rows["seen"][:, columns[0]], level.measure(seen), values[pairs.seen]
                )
            return values

        scorer = Ranker(facts, score)
        scorer.shared = self.shared[protocol]
        told = {}
        for mask in ("train-target", "all-behaviors"):
            groups = mb.evaluate(scorer, ds, split="test", mask=mask, k=(10, 20)).groups
            names = {"all": "", "visited": "visited ", "unvisited": "unvisited "}
            for group, word in names.items() if mask == "train-target" else [("unvisited", "discovery ")]:
                for name in FIGURES:
                    told[f"test {word}{name}"] = groups[group]["metrics"].get(name, np.nan)
        return told


def rows(
    measured: Measurement, runs: bool, ablate: bool, heads: bool, more: tuple[int, ...], tested: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset's tables, those on labels first, then those whose test pairs are ranked."""
    kinds = [kind.name for kind in measured.model.layout.kinds]
    plain = [kind for kind in kinds if kind != "dot"]
    paths = [("default", plain), ("more paths", plain)]
    wanted: list[tuple[str, list[str]]] = [*paths]
    wanted += [("run", kinds), ("run, more paths", kinds)] if runs else []
    if heads:
        wanted += [(f"{name}, mlp".removeprefix("default, "), own) for name, own in wanted]
        wanted += [
            (f"{name}, mlp of {n} more labels".removeprefix("default, "), own) for n in more for name, own in paths
        ]
    if ablate:
        wanted += [(f"without {gone}", [kind for kind in plain if kind != gone]) for gone in plain]
        wanted += [(f"{kind} alone", [kind]) for kind in plain if kind != "user"]
    ranked: dict[str, tuple[float, Any]] = {}
    for name, own in wanted:
        start = time.process_time()
        columns = measured.chosen(set(own), "more paths" in name)
        given = name.partition("mlp of ")[2].partition(" ")[0]
        told, weights, head = measured.on_labels(columns, "mlp" in name, int(given or 0))
        yield {"evidence": name, "protocol": "P1", **told}
        if "without" not in name and "alone" not in name:
            ranked[name] = (told["labels NDCG@10"], (columns, weights, head, told))
        sys.stderr.write(f"{name}: {time.process_time() - start:.0f} s of CPU\n")
    best = max(ranked, key=lambda name: ranked[name][0])
    for name in dict.fromkeys(best if name == "best" else name for name in tested):
        columns, weights, head, told = ranked[name][1]
        for protocol in PROTOCOLS if len(measured.ds.valid) else PROTOCOLS[:1]:
            yield {"evidence": name, "protocol": protocol, **told, **measured.on_test(protocol, columns, weights, head)}


def main() -> None:
    """Measure, and add rows to the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset")
    parser.add_argument("--run", help="directory of a trained run whose dot products are evidence")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--noise", type=float, default=0.0, help="share of random pairs added to each auxiliary behavior"
    )
    parser.add_argument("--no-ablation", action="store_true")
    parser.add_argument("--no-mlp", action="store_true")
    parser.add_argument(
        "--head-labels", type=int, nargs="*", default=[], metavar="N", help="train purchases for the network besides"
    )
    parser.add_argument(
        "--test",
        nargs="*",
        default=["default", "best"],
        metavar="ROW",
        help="rows to rank test pairs of; best: by NDCG@10 on labels",
    )
    parser.add_argument("-o", "--out", type=Path, default=RESULTS, help="folder of the two tables")
    given = parser.parse_args()
    options = TwoStage.Options.from_text(dict(each.split("=", 1) for each in given.set)).given()
    command = "python benchmarks/twostage.py " + " ".join(_public(sys.argv[1:]))
    for seed in given.seeds:
        ds = mb.load_dataset(given.dataset)
        if given.noise:
            ds = perturb(ds, add=given.noise, rng=seed)
        start = time.process_time()
        measured = Measurement(ds, options, (given.run,) if given.run else (), seed)
        seconds = time.process_time() - start
        for row in rows(
            measured,
            bool(given.run),
            not given.no_ablation,
            not given.no_mlp,
            tuple(given.head_labels),
            tuple(given.test),
        ):
            first = {"dataset": given.dataset, "noise": given.noise, "seed": seed}
            labels = {"labels": measured.problem.labels.source, "labels visited share": measured.problem.labels.visited}
            found = {key: round(value, 4) for key, value in row.items() if isinstance(value, float) and value == value}
            _add(
                given.out / ("twostage.csv" if "test HR@10" in row else "twostage_labels.csv"),
                {**first, **row, **labels, **found, "evidence CPU seconds": round(seconds), "command": command},
            )


def _public(words: list[str]) -> list[str]:
    """Return the arguments that decide numbers; of a run its name alone."""
    made, skip = [], False
    for place, word in enumerate(words):
        if skip or word in ("-o", "--out"):
            skip = not skip
        else:
            word = f'"{word}"' if " " in word else word
            made.append(f"runs/{Path(word).name}" if place and words[place - 1] == "--run" else word)
    return made


def _add(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a CSV file; what is no number stays empty."""
    add_rows(path, [{key: "" if value != value else value for key, value in row.items()}])


if __name__ == "__main__":
    main()
