"""How fast on a graphics card: steps, kernels, epochs, evaluation and memory, in each way that a step can be computed.

Everything runs on any device, so that it is tested without a card; kernel times and memory are known on CUDA alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbgraph.bench.machine import median_seconds
from mbgraph.bench.speed import SEED, Settings
from mbgraph.data.catalog import load_dataset
from mbgraph.data.splits import hold_out
from mbgraph.errors import RunError
from mbgraph.evaluation.evaluate import evaluate_splits
from mbgraph.machine import cpu_name
from mbgraph.models.context import StepContext
from mbgraph.models.rmbrec import RMBRec
from mbgraph.nn import Relation, propagate_each
from mbgraph.nn.propagation import Rows
from mbgraph.training.devices import resolve_device
from mbgraph.training.trainer import Trainer

__all__ = ["GROWING", "WAYS", "device_name", "measure_card", "measure_growth"]

WAYS = (("auto", False), ("triton", False), ("triton", True))
"""Backend and whether steps are recorded: what a device does by default, our kernels, and our kernels in one graph."""
GROWING = ((30_000_000, 300_000, 100_000), (100_000_000, 1_000_000, 300_000), (400_000_000, 4_000_000, 1_000_000))
"""Pairs, users and items of random graphs."""

_WARM = 4  # epochs before anything is timed: kernels are compiled, and steps recorded when their shapes come again


def device_name(device: torch.device) -> str:
    """Return what a device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def measure_card(
    name: str, device: str, settings: Settings, notify: Callable[[str], None], ways: tuple[tuple[str, bool], ...] = WAYS
) -> Iterator[dict[str, Any]]:
    """Yield a row per way for one dataset: RMBRec as published, in batches of 1,024 users.

    Times are medians over ``settings.repeats`` epochs or evaluations, by the clock: every step ends with its terms on
    the host. ``kernel ms`` is what the device itself was busy, per step, under a profiler.
    """
    ds = load_dataset(name)
    if not len(ds.valid):
        ds = hold_out(ds, split="valid", rng=0)
    for backend, record in ways:
        notify(f"{name}: {backend}{', recorded' if record else ''}")
        _start_counting(device)
        model = RMBRec(ds.graph, ds.target, variant="official", backend=backend, rng=SEED)
        training = model.options.training().replace(diagnose_every=0, record_steps=record)
        trainer = Trainer(model, ds, training=training, rng=SEED, device=device)
        for epoch in range(_WARM):
            trainer.train_epoch(epoch + 1)
        epochs, before = [], trainer.steps.replayed
        for turn in range(settings.repeats):
            start = time.perf_counter()
            terms, _ = trainer.train_epoch(_WARM + turn + 1)
            epochs.append(time.perf_counter() - start)
        replayed = (trainer.steps.replayed - before) / (settings.repeats * trainer.steps_per_epoch)
        steps, kernels = _steps(trainer, _WARM + settings.repeats + 1)
        ranking = median_seconds(partial(evaluate_splits, model.eval(), ds), settings.repeats)
        yield {
            "dataset": name,
            "backend": backend,
            "recorded": record,
            "replayed": round(replayed, 3),
            "not recorded because": trainer.unrecorded or trainer.steps.reason or "",
            "ms per step": round(1e3 * steps, 4),
            "kernel ms": None if kernels is None else round(1e3 * kernels, 4),
            "s per epoch": round(statistics.median(epochs), 5),
            "full ranking, s": round(ranking, 5),
            "peak MiB": _peak(device),
            "loss": round(terms["total"], 6),
            "repeats": settings.repeats,
        }
        del trainer, model


def _start_counting(device: str) -> None:
    if resolve_device(device).type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> float | None:
    """Return the most memory that tensors had on the card, in MiB."""
    return round(torch.cuda.max_memory_allocated() / 2**20, 1) if resolve_device(device).type == "cuda" else None


def _steps(trainer: Trainer, epoch: int) -> tuple[float, float | None]:
    """Return the median seconds of an epoch's steps, batches drawn before, and what the device was busy in one."""
    batches = list(trainer.batches.epoch(epoch))
    trainer.model.train()
    trainer.model.begin_epoch(StepContext(epoch, 0, trainer.rng))

    def take(number: int) -> None:
        trainer._step(batches[number].to(trainer.device), StepContext(epoch, number, trainer.rng))

    seconds = []
    for number in range(len(batches)):
        start = time.perf_counter()
        take(number)
        seconds.append(time.perf_counter() - start)
    if trainer.device.type != "cuda":
        return statistics.median(seconds), None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for number in range(len(batches)):
            take(number)
        torch.cuda.synchronize()
    busy = sum(entry.self_device_time_total for entry in profiled.key_averages()) / 1e6
    return statistics.median(seconds), busy / len(batches)


def measure_growth(
    pairs: int, users: int, items: int, device: str, repeats: int = 5, behaviors: int = 3, width: int = 64
) -> dict[str, Any]:
    """Return a row for a random graph: two layers with norms of all behaviors, their derivative, and Adam.

    A step picks 1,024 rows per side and behavior, as a batch does; there is no contrast in it. Pairs are random, so the
    graph has no popular item and no order that a cache could use: it is the hard case. One pair in a few thousand
    stands twice.
    """
    target = resolve_device(device)
    rng = np.random.default_rng(SEED)
    share, start = pairs // behaviors, time.perf_counter()
    relations = []
    for _ in range(behaviors):
        keys = torch.from_numpy(rng.integers(0, users * items, share)).to(target).sort().values.cpu()
        relations.append(Relation(keys // items, keys % items, users, items, backend="triton"))
    generator = torch.Generator().manual_seed(SEED)
    of_users, of_items = (
        (torch.randn(count, width, generator=generator) * 0.1).to(target).requires_grad_() for count in (users, items)
    )
    at: list[Rows] = []
    for _ in relations:
        own = [torch.from_numpy(rng.integers(0, count, 1024)).to(target) for count in (users, items)]
        at.append((own[0], own[1]))
    optimizer = torch.optim.Adam([of_users, of_items], fused=True)
    _start_counting(device)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        made = propagate_each(relations, of_users, of_items, 2, layer_norm=True, weights=(1.0, 1.0, 1.0), at=at)
        loss: Tensor = torch.stack([(part[0] * part[1]).sum(1).sigmoid().log().mean().neg() for part in made]).sum()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    try:
        step()
        first = time.perf_counter() - start
        seconds = median_seconds(step, repeats, warm=1)
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"a graph of {pairs:,} pairs does not fit on {device_name(target)}", "measure a smaller one"
        ) from error
    return {
        "pairs": share * behaviors,
        "users": users,
        "items": items,
        "behaviors": behaviors,
        "width": width,
        "ms per step": round(1e3 * seconds, 3),
        "s before the first": round(first, 2),
        "peak MiB": _peak(device),
        "repeats": repeats,
    }
