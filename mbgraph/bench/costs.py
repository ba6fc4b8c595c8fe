"""What one training step costs as the graph or the model grows: time, its floor, and memory.

Graphs are generated; each is trained in a process of its own, whose peak of memory is its own too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from mbgraph.bench.speed import SEED, Settings, make_trainer, step_work
from mbgraph.data.synthetic import Auxiliary, SyntheticConfig, generate
from mbgraph.errors import RunError, UsageError
from mbgraph.machine import peak_memory_mb
from mbgraph.models.batch_rule import MOST_STEPS
from mbgraph.models.context import StepContext

__all__ = ["OWN_BATCH", "Shape", "growing", "measure_step", "memory_per", "run_apart", "varying"]

_STEPS = 6
OWN_BATCH = 1024
"""Users per step where a shape says nothing else: RMBRec's own number."""


@dataclass(frozen=True)
class Shape:
    """A generated graph, and the model that is trained on it."""

    edges: int
    """Train pairs of all behaviors together; a tenth are the target's."""
    users: int = 0
    """0: one per hundred edges."""
    items: int = 0
    """0: one per three users."""
    behaviors: int = 3
    """The target and its auxiliary behaviors. The number of edges does not depend on it."""
    width: int = 64
    """Numbers per embedding."""
    batch: int | Literal["auto"] = OWN_BATCH
    """Users per step; ``auto`` leaves them to `mbgraph.models.batch_rule`."""
    block_users: int = 0
    """Users whose pairs a step reads; 0: all. Those of the batch are always among them."""

    def __str__(self) -> str:
        sizes = [f"{self.edges:,} edges"]
        sizes += [f"{count:,} {name}" for name, count in (("users", self.users), ("items", self.items)) if count]
        batches = "auto" if self.batch == "auto" else f"{self.batch:,}"
        sizes += [f"{self.behaviors} behaviors", f"width {self.width}", f"batches of {batches}"]
        sizes += [f"blocks of {self.block_users:,} users"] if self.block_users else []
        return ", ".join(sizes)

    def config(self) -> SyntheticConfig:
        """Return the configuration of the graph."""
        users = self.users or max(30, self.edges // 100)
        changes: dict[str, Any] = {
            "num_users": users,
            "num_items": self.items or max(300, users // 3),
        }
        scaled = SyntheticConfig.scaled(self.edges, held_out=False)
        if self.behaviors != 1 + len(scaled.auxiliary):
            edges = sum(spec.edges for spec in scaled.auxiliary.values())
            count = self.behaviors - 1
            sizes = np.diff(np.linspace(0, edges, count + 1).astype(int)).tolist()
            changes["auxiliary"] = {f"aux{n}": Auxiliary(size, 0.35, 0.1) for n, size in enumerate(sizes, 1)}
            changes["dt"] = None
        return replace(scaled, **changes, pairs_per_user=scaled.num_pairs / users)


def growing(settings: Settings) -> list[Shape]:
    """Return graphs of one kind that grow, one with many users of few edges, and the largest with ``auto`` batches.

    The latter over the whole graph, and in blocks of the batch's users.
    """
    edges, users = settings.crowd
    shapes = [*(Shape(size) for size in settings.edges), Shape(edges, users)]
    large = [shape for shape in shapes if shape.config().num_users > MOST_STEPS * OWN_BATCH]
    large = [replace(shape, batch="auto") for shape in large]
    return [*shapes, *large, *(replace(shape, block_users=1) for shape in large)]


def varying(settings: Settings) -> list[tuple[str, Shape]]:
    """Return shapes in each of which one property, named, differs from the first."""
    base = Shape(settings.base, users=settings.base // 100, items=settings.base // 300)
    changes: dict[str, tuple[int, ...]] = {
        "users": (base.users * 2, base.users * 4),
        "items": (base.items * 2, base.items * 4),
        "behaviors": (2, 4, 5),
        "width": (32, 128, 256),
        "batch": (256, 512, 2048, 4096),
    }
    varied = [(name, replace(base, **{name: value})) for name, values in changes.items() for value in values]
    return [("base", base), *varied]


def measure_step(shape: Shape) -> dict[str, Any]:
    """Train some steps; return the median of their seconds, what drawing an epoch takes, the work and the memory.

    ``busy`` are the seconds of all threads in a step: on a machine with other work they tell what a step takes.

    Meant for a process of its own, whose peak memory it reports.
    """
    ds = generate(shape.config(), rng=0)
    ds.graph  # noqa: B018 (built here, so that it is not timed)
    trainer = make_trainer(ds, embedding_dim=shape.width, batch_size=shape.batch, block_users=shape.block_users)
    start = time.perf_counter()
    epoch = trainer.batches.epoch(1)
    batches = [next(epoch)]  # with it all rows of the epoch are drawn
    drawing = time.perf_counter() - start
    batches += [batch for _, batch in zip(range(_STEPS - 1), epoch, strict=False)]
    seconds, busy = [], time.process_time()
    for number, batch in enumerate([batches[0], *batches]):
        start = time.perf_counter()
        trainer._step(batch, StepContext(1, number, SEED))
        seconds.append(time.perf_counter() - start)
        busy = time.process_time() if number == 0 else busy  # the first one compiles
    busy = (time.process_time() - busy) / len(batches)
    moved, operations = step_work(trainer)
    return {
        "edges": sum(len(pairs) for pairs in ds.edges.values()),
        "users": ds.num_users,
        "items": ds.num_items,
        "behaviors": len(ds.behaviors),
        "width": shape.width,
        "batch": trainer.training.rows,
        "block users": max(shape.block_users, trainer.training.rows) if shape.block_users else 0,
        "steps": trainer.steps_per_epoch,
        "drawing": drawing,
        "seconds": statistics.median(seconds[1:]),
        "busy": busy,
        "moved": moved,
        "operations": operations,
        "peak": peak_memory_mb(),
    }


def run_apart(shapes: Sequence[Shape], bandwidth: float, rate: float) -> Iterator[dict[str, Any]]:
    """Yield a row of the table for each shape, from a process of its own.

    Parameters
    ----------
    shapes : sequence of Shape
    bandwidth, rate : float
        Bytes per second of a copy, operations per second of a matrix product: see `mbgraph.bench.machine`.
    """
    code = (
        "import json, sys, torch; from mbgraph.bench.costs import Shape, measure_step; "
        "shape, threads = json.loads(sys.argv[1]); torch.set_num_threads(threads); "
        "print(json.dumps(measure_step(Shape(**shape))))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for shape in shapes:
        argument = json.dumps([asdict(shape), torch.get_num_threads()])
        done = subprocess.run(
            [sys.executable, "-c", code, argument], capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode != 0:
            raise RunError(f"the graph of {shape} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        yield _row(json.loads(done.stdout.splitlines()[-1]), bandwidth, rate)


def _row(measured: Mapping[str, Any], bandwidth: float, rate: float) -> dict[str, Any]:
    seconds, steps = measured["seconds"], measured["steps"]
    floor = measured["moved"] / bandwidth + measured["operations"] / rate
    return {
        **{name: measured[name] for name in ("edges", "users", "items", "behaviors", "width", "batch", "block users")},
        "ms per step": round(1e3 * seconds, 2),
        "ns per edge": round(1e9 * seconds / measured["edges"], 2),
        "floor, ms": round(1e3 * floor, 2),
        "times floor": round(seconds / floor, 2),
        "s per epoch": round(measured["drawing"] + seconds * steps, 2),
        "CPU s per epoch": round(measured["drawing"] + measured["busy"] * steps, 2),
        "peak MiB": round(measured["peak"]),
    }


def memory_per(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what an edge and a node take: the line through all rows.

    Least squares of relative errors over ``bytes = start + per edge x edges + per node x (users + items)``, so that
    small graphs count as much as large ones; ``largest error`` tells how straight it is. The rows must have one
    width, one batch, as many behaviors, and not all as many edges per node.

    Raises
    ------
    UsageError
        If they all have as many edges per node.
    """
    counts = np.array([[row["edges"], row["users"] + row["items"], 1] for row in rows], float)  # (R, 3)
    size = 2.0**20 * np.array([row["peak MiB"] for row in rows])  # (R,)
    design = counts / size[:, None]
    scale = np.linalg.norm(design, axis=0)
    solution, _, rank, _ = np.linalg.lstsq(design / scale, np.ones(len(rows)), rcond=1e-4)
    if rank < counts.shape[1]:
        raise UsageError("graphs with as many edges per node do not tell an edge from a node", "measure another")
    per_edge, per_node, start = (solution / scale).tolist()
    return {
        "bytes per edge": round(per_edge, 1),
        "bytes per node": round(per_node),
        "MiB beside": round(start / 2**20),
        "largest error": round(float(np.abs(design @ (per_edge, per_node, start) - 1).max()), 3),
    }
