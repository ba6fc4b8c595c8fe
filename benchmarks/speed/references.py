"""Measure training steps of the published programs beside ours: same data, same batch size, same threads, in turns.

    python benchmarks/speed/references.py taobao15k crgcn=CHECKOUT --python PEER/bin/python \
        -o benchmarks/results/speed_references.csv

A checkout is a clone at the commit that `reference_data.py` names; nothing is written to it. The program runs in a
process of its own (`reference_step.py`), from drawing a batch to the optimizer's step; ours does the same. Rows of
other models and datasets that the file has stay.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# as the command line does, before torch loads; the reference gets the same
os.environ.setdefault("GOMP_SPINCOUNT", "4000")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
from reference_data import REFERENCES, Reference

import mbgraph as mb
from mbgraph.bench.report import read_rows, write_rows
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import MbgraphError, RunError, UnknownNameError, UsageError
from mbgraph.machine import cpu_name
from mbgraph.models import MODELS
from mbgraph.models.context import StepContext
from mbgraph.training.trainer import Trainer

SEED = 2026
Step = dict[str, Any]


class Program:
    """A reference at work in a process of its own, that takes as many steps as it is told."""

    def __init__(self, reference: Reference, checkout: Path, ds: MultiBehaviorDataset, python: str, threads: int):
        self.scratch = tempfile.TemporaryDirectory()
        root = Path(self.scratch.name) / "reference"
        shutil.copytree(checkout, root, ignore=_only_python)
        program = Path(reference.program)
        folder = root / program.parent
        if program.suffix and not (root / program).is_file():
            raise UsageError(f"{checkout} has no {program}", f"clone {reference.repository} at {reference.commit}")
        arguments = reference.write(ds, folder)
        flags = ["--threads", str(threads), "--patches", ",".join(reference.changes), "--answers", reference.answers]
        step = Path(__file__).with_name("reference_step.py").resolve()
        flags += ["--sampler", reference.sampler]
        command = [python, str(step), *flags, program.name, "--", *arguments]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment["OMP_NUM_THREADS"] = str(threads)
        self.errors = (Path(self.scratch.name) / "printed").open("w+", encoding="utf-8")
        try:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                env=environment,
            )
        except OSError as error:
            raise UsageError(f"{python} does not start: {error.strerror}", "give an interpreter with torch") from error
        self.command = " ".join(["python", reference.program, *arguments])
        self.started = self._line()

    def _line(self) -> Step:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            printed = self.errors.read().strip().replace("\n", " ")
            raise RunError(f"the reference ended with {self.process.wait()}: {printed[-400:]}")
        return json.loads(line)

    def steps(self, count: int) -> list[Step]:
        """Take some steps."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return [self._line() for _ in range(count)]

    def close(self) -> None:
        """End the program and remove its files."""
        self.process.kill()
        self.process.wait()
        self.errors.close()
        self.scratch.cleanup()


def _only_python(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == ".git" or not (name.endswith(".py") or Path(folder, name).is_dir())]


class Ours:
    """Our model on the same data, that takes the same steps."""

    def __init__(self, reference: Reference, ds: MultiBehaviorDataset) -> None:
        model = MODELS.get(reference.model)(ds.graph, ds.target, rng=SEED, **reference.options)
        training = {"diagnose_every": 0, **reference.training}
        self.trainer = Trainer(model, ds, rng=SEED, device="cpu", **training)
        self.parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        self._batches = self._epochs()
        model.train()

    def _epochs(self) -> Iterator[tuple[Any, StepContext]]:
        epoch = 0
        while True:
            epoch += 1
            self.trainer.model.begin_epoch(StepContext(epoch, 0, SEED))
            for number, batch in enumerate(self.trainer.batches.epoch(epoch)):
                # a reference's steps are of its first epoch, which the short last batch ends
                if number < max(1, self.trainer.steps_per_epoch - 1):
                    yield batch, StepContext(epoch, number, SEED)

    def steps(self, count: int) -> list[Step]:
        """Take some steps."""
        made = []
        for _ in range(count):
            cpu, wall = time.process_time(), time.perf_counter()
            batch, context = next(self._batches)
            drawn = time.process_time()
            terms = self.trainer._step(batch, context)
            took = time.process_time() - cpu, time.perf_counter() - wall
            made.append({"cpu": took[0], "wall": took[1], "draw": drawn - cpu, "loss": terms["total"]})
        return made


def summary(reference: list[Step], ours: list[Step], steps_per_epoch: int) -> dict[str, Any]:
    """Return medians of both sides' steps, and how many times as fast ours are.

    A sampler that draws an epoch at once is shared out among the epoch's steps.
    """
    row: dict[str, Any] = {}
    beside = max((step.get("sampler") or 0.0 for step in reference), default=0.0) / steps_per_epoch
    times = {}
    for kind in ("cpu", "wall"):
        other, own = (statistics.median(step[kind] for step in steps) for steps in (reference, ours))
        times[kind] = (own, other + beside)
        row[f"{kind} s ours"], row[f"{kind} s reference"] = (round(value, 5) for value in times[kind])
        row[f"{kind} ratio"] = round((other + beside) / own, 2)
    draws = [[step["draw"] for step in steps if step["draw"] is not None] for steps in (ours, reference)]
    row["drawing s ours"] = round(statistics.median(draws[0]), 5)
    row["drawing s reference"] = round(beside or statistics.median(draws[1]), 5)
    inner = [times["cpu"][n] - row[f"drawing s {side}"] for n, side in enumerate(("ours", "reference"))]
    row["ratio without drawing"] = round(inner[1] / inner[0], 2)
    row["loss ours"], row["loss reference"] = (
        round(statistics.mean(step["loss"] for step in steps[: len(reference)]), 4) for steps in (ours, reference)
    )
    row["steps ours"], row["steps reference"] = len(ours), len(reference)
    return row


def compare(
    reference: Reference, checkout: Path, ds: MultiBehaviorDataset, python: str, threads: int, turns: int, steps: int
) -> dict[str, Any]:
    """Return the row of one model and dataset; each turn is the reference's and then ours."""
    if len(ds.behaviors) not in reference.behaviors:
        raise UsageError(
            f"{reference.repository} has no place for {len(ds.behaviors)} behaviors", "choose another dataset"
        )
    torch.set_num_threads(threads)
    ours = Ours(reference, ds)
    ours.steps(2)  # compiles
    program = Program(reference, checkout, ds, python, threads)
    taken: tuple[list[Step], list[Step]] = ([], [])
    try:
        for _ in range(turns):
            taken[0].extend(program.steps(steps))
            taken[1].extend(ours.steps(steps))
    finally:
        program.close()
    return {
        "model": reference.model,
        "dataset": ds.name,
        "reference": f"{reference.repository} at {reference.commit}",
        "batch size": ours.trainer.training.batch_size,
        **summary(*taken, ours.trainer.steps_per_epoch),
        "parameters ours": ours.parameters,
        "parameters reference": program.started["parameters"],
        "changed": "; ".join(reference.changes.values()),
        "command": f"references.py {ds.name} {reference.model}=CHECKOUT --turns {turns} --steps {steps}",
        "command of the reference": program.command,
        "torch": torch.__version__,
        "torch reference": program.started["torch"],
        "threads": threads,
        "load": round(os.getloadavg()[0], 1),
        "cpu": cpu_name(),
    }


def merged(old: Iterable[dict[str, Any]], new: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the old rows with those of the same model and dataset replaced, and the others behind them."""
    rows = {(row["model"], row["dataset"]): row for row in old}
    rows |= {(row["model"], row["dataset"]): row for row in new}
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("checkouts", nargs="+", metavar="MODEL=CHECKOUT")
    parser.add_argument("--python", default=sys.executable, help="the reference's interpreter, by default this one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2, help="steps of each side in a turn")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        ds = mb.load_dataset(arguments.dataset)
        if not len(ds.valid):
            ds = mb.hold_out(ds, split="valid", rng=0)
        for entry in arguments.checkouts:
            model, _, checkout = entry.partition("=")
            if model not in REFERENCES:
                raise UnknownNameError("reference", model, list(REFERENCES))
            counts = (arguments.threads, arguments.turns, arguments.steps)
            row = compare(REFERENCES[model], Path(checkout), ds, arguments.python, *counts)
            old = read_rows(arguments.out) if arguments.out.exists() else []
            write_rows(arguments.out, merged(old, [row]))
            print(*(f"{key}={value}" for key, value in row.items()), sep="\n", flush=True)
    except MbgraphError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
