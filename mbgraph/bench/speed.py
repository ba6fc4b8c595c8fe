"""How fast, how far from the machine's limit, and how much faster than the usual way.

Ours and the plain loop (``benchmarks/speed/plain.py``) run in turns in one process, on the same data and threads, so
that a ratio compares times of the same minutes. A floor is the least time the counted work can take: bytes that must
move over the measured copy bandwidth, or arithmetic over the measured rate of a matrix product. Rows that stay in a
cache beat the first kind of floor.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mbgraph.bench.machine import copy_bandwidth, gemm_rate, median_seconds
from mbgraph.data.catalog import load_dataset
from mbgraph.data.formats.npz import read_npz, write_npz
from mbgraph.data.interactions import Pairs
from mbgraph.data.splits import hold_out
from mbgraph.errors import RunError
from mbgraph.evaluation.evaluate import evaluate_splits
from mbgraph.files import shipped
from mbgraph.models.context import StepContext
from mbgraph.models.rmbrec import RMBRec
from mbgraph.nn.propagation import propagate
from mbgraph.nn.relations import Relations
from mbgraph.training.trainer import Trainer

if TYPE_CHECKING:
    from mbgraph.data.dataset import MultiBehaviorDataset

__all__ = [
    "Part",
    "Settings",
    "load_plain",
    "make_trainer",
    "measure",
    "step_shares",
    "step_work",
    "write_pair_files",
]

SEED = 2026


@dataclass(frozen=True)
class Settings:
    """How thoroughly to measure."""

    repeats: int = 5
    """Medians are over that many times, ours and plain in turns."""
    plain_steps: int = 5
    """Training steps of the plain loop per time; its epoch is that many steps' time, scaled."""
    build_repeats: int = 5
    """Times the plain loop builds its graph."""
    edges: tuple[int, ...] = (1_000_000, 3_000_000, 10_000_000, 30_000_000)
    """Sizes of the generated graphs that grow."""
    crowd: tuple[int, int] = (20_000_000, 1_000_000)
    """Edges and users of one more graph, with few edges per user: what memory is mostly for."""
    base: int = 2_000_000
    """Edges of the generated graph of which one property varies at a time."""
    whole_fit: bool = True
    """Whether to time a complete fit with early stopping on the first dataset."""

    @classmethod
    def quick(cls) -> Settings:
        """Return settings for a few minutes."""
        return cls(
            repeats=3,
            plain_steps=1,
            build_repeats=1,
            edges=(300_000, 1_000_000, 3_000_000),
            crowd=(1_000_000, 50_000),
            base=300_000,
            whole_fit=False,
        )


@dataclass(frozen=True)
class Part:
    """One measured part of the work; times are in ``unit``."""

    part: str
    dataset: str
    unit: str
    ours: float
    plain: float | None = None
    floor: float | None = None
    goal: str = ""
    repeats: int = 1

    def row(self) -> dict[str, Any]:
        """Return the part as a row of a table; what it does not have is empty."""
        values = asdict(self)
        values["ratio"] = None if self.plain is None else self.plain / self.ours
        values["times floor"] = None if self.floor is None else self.ours / self.floor
        return {
            key: round(value, 4) if isinstance(value, float) else "" if value is None else value
            for key, value in values.items()
        }


def measure(name: str, settings: Settings, notify: Callable[[str], None]) -> Iterator[Part]:
    """Yield the parts of one dataset as they are measured, ours beside the plain loop."""
    notify(f"{name}: preparing")
    ds = load_dataset(name)
    if not len(ds.valid):
        ds = hold_out(ds, split="valid", rng=0)
    bandwidth, rate = copy_bandwidth(), gemm_rate()
    yield Part("the machine: a copy in main memory", name, "GB/s", bandwidth / 1e9)
    yield Part("the machine: a large matrix product", name, "Gflop/s", rate / 1e9)
    with tempfile.TemporaryDirectory() as folder:
        yield from _loading(ds, Path(folder), settings, notify)
        plain = load_plain()
        data = plain.PlainData(Path(folder) / "pairs", list(ds.behaviors), ds.target)
        notify(f"{name}: building the plain loop's matrices")
        yardstick = plain.PlainRMBRec(data)
    yield from _training(ds, plain, yardstick, settings, bandwidth, rate, notify)
    yield from _evaluation(ds, plain, yardstick, settings, rate, notify)
    yield from _propagation(ds, settings, bandwidth)
    notify(f"{name}: a fit of two epochs in a process of its own")
    outcome, _ = _fit(name, ("--epochs", "2"))
    goal = {"taobao15k": "at most 900", "beibei": "at most 1,300"}.get(name, "")
    yield Part("peak memory of a fit, imports included", name, "MiB", outcome["peak_memory_mb"], goal=goal)
    if settings.whole_fit:
        notify(f"{name}: a whole fit to early stopping")
        outcome, seconds = _fit(name, ())
        part = f"whole fit, {outcome['epochs']} epochs"
        yield Part(part, name, "s", seconds, goal="under 300" if name == "taobao15k" else "")


def load_plain() -> Any:
    """Import the plain loop from where it lies."""
    path = shipped("benchmarks") / "speed" / "plain.py"
    spec = importlib.util.spec_from_file_location("mbgraph_plain", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise RunError(f"the plain loop is missing: {path}", "run from a complete installation")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write_pair_files(ds: MultiBehaviorDataset, folder: Path) -> None:
    """Write a dataset as the published folders are: a text file per behavior, ids from 1."""
    folder.mkdir()
    (folder / "count.txt").write_text(json.dumps({"user": ds.num_users, "item": ds.num_items}), encoding="utf-8")
    parts: dict[str, Pairs] = {**ds.edges, "validation": ds.valid, "test": ds.test}
    for part, pairs in parts.items():
        lines = np.stack([pairs.user + 1, pairs.item + 1], axis=1)
        lines = lines[np.argsort(lines[:, 0], kind="stable")]
        np.savetxt(folder / f"{part}.txt", lines, fmt="%d")


def _loading(
    ds: MultiBehaviorDataset, folder: Path, settings: Settings, notify: Callable[[str], None]
) -> Iterator[Part]:
    """Measure from files to a heterograph whose neighbour lists are ready in both directions."""
    from mbgraph.data.formats import read

    write_pair_files(ds, folder / "pairs")
    write_npz(ds, folder / "npz")
    plain = load_plain()
    notify(f"{ds.name}: building graphs")

    def ready(loaded: MultiBehaviorDataset) -> None:
        for relation in Relations.of(loaded.graph).values():
            relation.neighbors("user")
            relation.neighbors("item")

    def usual() -> None:
        data = plain.PlainData(folder / "pairs", list(ds.behaviors), ds.target)
        for behavior in ds.behaviors:
            data.adjacency(behavior)

    cold = median_seconds(lambda: ready(read(folder / "pairs", "pairs", target=ds.target)), settings.repeats)
    kept = median_seconds(lambda: ready(read_npz(folder / "npz")), settings.repeats)
    build = median_seconds(usual, settings.build_repeats, warm=0)
    yield Part("text files to ready graph", ds.name, "s", cold, build, goal="20x", repeats=settings.build_repeats)
    yield Part("npz folder to ready graph", ds.name, "s", kept, build, goal="100x", repeats=settings.build_repeats)


def make_trainer(
    ds: MultiBehaviorDataset,
    row_dtype: str = "float32",
    embedding_dim: int = 64,
    batch_size: int | str | None = None,
    block_users: int = 0,
) -> Trainer:
    """Return the trainer whose steps are measured: RMBRec as published, on the CPU."""
    model = RMBRec(ds.graph, ds.target, variant="official", embedding_dim=embedding_dim, row_dtype=row_dtype, rng=SEED)
    training = model.options.training().replace(diagnose_every=0, block_users=block_users)
    if batch_size is not None:
        training = training.replace(batch_size=batch_size)
    return Trainer(model, ds, training=training, rng=SEED, device="cpu")


def _training(
    ds: MultiBehaviorDataset,
    plain: Any,
    yardstick: Any,
    settings: Settings,
    bandwidth: float,
    rate: float,
    notify: Callable[[str], None],
) -> Iterator[Part]:
    trainers = {dtype: make_trainer(ds, dtype) for dtype in ("float32", "bfloat16")}
    optimizer, rng = plain.make_optimizer(yardstick), random.Random(SEED)
    seconds: dict[str, list[float]] = {"plain": [], **{dtype: [] for dtype in trainers}}
    with contextlib.suppress(StopIteration):
        for trainer in trainers.values():
            trainer.train_epoch(1)  # compiles, and fills the workspace
        for turn in range(settings.repeats):
            notify(f"{ds.name}: training, turn {turn + 1} of {settings.repeats}")
            for dtype, trainer in trainers.items():
                start = time.perf_counter()
                trainer.train_epoch(turn + 2)
                seconds[dtype].append(time.perf_counter() - start)
            start = time.perf_counter()
            steps = plain.train_steps(yardstick, optimizer, trainer.training.rows, rng, settings.plain_steps)
            seconds["plain"].append((time.perf_counter() - start) * trainer.steps_per_epoch / steps)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    for dtype, goal in (("float32", "8x"), ("bfloat16", "12x")):
        moved, operations = step_work(trainers[dtype])
        floor = trainers[dtype].steps_per_epoch * (moved / bandwidth + operations / rate)
        part = f"training epoch, {dtype} rows"
        yield Part(part, ds.name, "s", middle[dtype], middle["plain"], floor, goal, settings.repeats)


def step_work(trainer: Trainer) -> tuple[float, float]:
    """Return the bytes of rows that one step's neighbour sums read and write, and the operations of its contrasts.

    Counted on the epoch's first batch. Layers before the last are whole tables in both directions, forward and
    backward; the last one reads the neighbours of the batch's rows.
    """
    model = trainer.model
    assert isinstance(model, RMBRec)
    encoder, batch = model.encoder, next(iter(trainer.batches.epoch(1)))
    width = model.options.embedding_dim
    row = width * (2 if model.options.row_dtype == "bfloat16" else 4)
    layers, moved = model.options.num_layers, 0.0
    block = trainer.block(batch, StepContext(1, 0, SEED))
    for behavior, whole_relation in encoder.relations.items():
        relation = whole_relation if block is None else block.of(whole_relation)
        sides = {
            "user": batch.users,
            "item": torch.unique(torch.cat([batch.positives[behavior], batch.negatives[behavior]])),
        }
        for side, rows in sides.items():
            indptr, _ = relation.neighbors(side)
            degrees = torch.from_numpy(indptr).diff()
            whole, count = int(degrees.sum()), len(degrees)
            chosen = int(degrees[torch.unique(rows[rows >= 0]).clamp_max(count - 1)].sum())
            reads = 2 * (layers - 1) * whole + 2 * chosen
            writes = (2 * layers - 1) * count
            moved += reads * (row + 4) + writes * row
    size = trainer.training.rows
    operations = (len(encoder.relations) - 1) * 3 * 2.0 * size * size * width
    return moved, operations


def _evaluation(
    ds: MultiBehaviorDataset, plain: Any, yardstick: Any, settings: Settings, rate: float, notify: Callable[[str], None]
) -> Iterator[Part]:
    model = make_trainer(ds).model.eval()
    ours, usual = [], []
    evaluate_splits(model, ds)
    for turn in range(settings.repeats):
        notify(f"{ds.name}: evaluation, turn {turn + 1} of {settings.repeats}")
        start = time.perf_counter()
        evaluate_splits(model, ds)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        for split in ("validation", "test"):
            plain.evaluate(yardstick, split)
        usual.append(time.perf_counter() - start)
    users = len(np.unique(np.concatenate([ds.valid.user, ds.test.user])))
    floor = 2.0 * users * ds.num_items * 64 / rate
    middle = statistics.median(ours), statistics.median(usual)
    yield Part("full ranking, valid and test", ds.name, "s", *middle, floor, "6x", settings.repeats)


def _propagation(ds: MultiBehaviorDataset, settings: Settings, bandwidth: float) -> Iterator[Part]:
    """Measure one layer of the largest behavior in both directions; the goal is bytes per second over a copy's."""
    name = max(ds.edges, key=lambda behavior: len(ds.edges[behavior]))
    relation = Relations.of(ds.graph, (name,))[name]
    tables = torch.randn(ds.num_users, 64), torch.randn(ds.num_items, 64)
    every = (torch.arange(ds.num_users), torch.arange(ds.num_items))

    def layers(count: int, dtype: str) -> float:
        with torch.no_grad():
            return median_seconds(
                lambda: propagate(
                    relation, *tables, count, layer_norm=True, weights=[1.0] * (count + 1), at=every, row_dtype=dtype
                ),
                max(settings.repeats, 9),
            )

    for dtype, row in (("float32", 256), ("bfloat16", 128)):
        # what one more inner layer costs; several, because the difference of one may drown in noise
        seconds = (layers(11, dtype) - layers(3, dtype)) / 8
        moved = 2 * len(ds.edges[name]) * (row + 4) + (ds.num_users + ds.num_items) * row
        part, rounds = f"one layer of {name}, {dtype} rows", max(settings.repeats, 9)
        yield Part(f"{part}: bytes moved", ds.name, "GB/s", moved / seconds / 1e9, repeats=rounds)
        ratio = moved / seconds / bandwidth
        yield Part(f"{part}: over a copy's", ds.name, "x copy", ratio, goal="above 1.0", repeats=rounds)


def _fit(name: str, extra: tuple[str, ...]) -> tuple[dict[str, Any], float]:
    """Run ``mbgraph fit`` in a process of its own; return what it prints and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        code = "from mbgraph.cli.main import main; main()"
        arguments = ["fit", name, "--variant", "official", *extra, "--out", f"{folder}/run", "--json", "--quiet"]
        threads = ["--threads", str(torch.get_num_threads())]
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, *threads], capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise RunError(f"mbgraph fit {name} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout), seconds


def step_shares(name: str, steps: int = 8) -> list[dict[str, Any]]:
    """Return where the time of a training step goes: milliseconds per part, and their share."""
    from torch.profiler import ProfilerActivity, profile

    ds = load_dataset(name)
    rows = []
    for dtype in ("float32", "bfloat16"):
        trainer = make_trainer(ds, dtype)
        trainer.train_epoch(1)
        start = time.perf_counter()
        batches = list(trainer.batches.epoch(2))
        sampling = (time.perf_counter() - start) / len(batches)
        batches = batches[:steps]
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            start = time.perf_counter()
            for number, batch in enumerate(batches):
                trainer._step(batch, StepContext(2, number, SEED))
            whole = (time.perf_counter() - start) / len(batches)
        totals = {entry.key: entry.cpu_time_total / 1e6 / len(batches) for entry in profiled.key_averages()}
        named = {
            "sampler": sampling,
            "encoder, forward": totals.get("_Encode", 0.0),
            "encoder, backward": totals.get("_EncodeBackward", 0.0),
            "contrast, both ways": totals.get("_Contrast", 0.0) + totals.get("_ContrastBackward", 0.0),
            "Adam": totals.get("Optimizer.step#Adam.step", 0.0),
        }
        named["rest: rows, losses, autograd"] = whole - sum(named.values()) + sampling
        total = whole + sampling
        rows += [
            {
                "dataset": name,
                "rows": dtype,
                "part": part,
                "ms": round(1e3 * seconds, 2),
                "share": round(seconds / total, 3),
            }
            for part, seconds in named.items()
        ]
    return rows
