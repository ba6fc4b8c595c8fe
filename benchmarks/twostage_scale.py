"""Seconds and peak memory of the two-stage model on a generated shop.

    python benchmarks/twostage_scale.py 0.2

The size 1 is a shop of a million users, 200,000 items and about 20 million pairs: users and items in fifty groups, few
items of each with most of the touches, carts and purchases mostly of what was viewed. The numbers say what it costs and
nothing about quality. A row is added to benchmarks/results/twostage_scale.csv.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import mbgraph as mb
from mbgraph.bench.report import add_rows
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.machine import cpu_name, peak_memory_mb
from mbgraph.models import TwoStage
from mbgraph.typing import IntArray

RESULTS = Path(__file__).parent / "results" / "twostage_scale.csv"
USERS, ITEMS, GROUPS = 1_000_000, 200_000, 50


def shop(size: float) -> mb.MultiBehaviorDataset:
    """Return a generated shop with validation pairs: the last purchase in the order of items of users with several."""
    users, items = int(USERS * size), int(ITEMS * size)
    rng = np.random.default_rng(0)
    user_group = rng.integers(0, GROUPS, users)
    popularity = np.minimum(rng.zipf(1.3, size=items).astype(float), 1000)
    item_group = rng.integers(0, GROUPS, items)
    order = np.argsort(item_group, kind="stable")
    start = np.searchsorted(item_group[order], np.arange(GROUPS + 1))

    def drawn(count: int) -> IntArray:
        who, own = rng.integers(0, users, count), rng.random(count) < 0.7
        what = rng.integers(0, items, count)
        for group in range(GROUPS):
            rows = np.flatnonzero(own & (user_group[who] == group))
            near = order[start[group] : start[group + 1]]
            what[rows] = rng.choice(near, len(rows), p=popularity[near] / popularity[near].sum())
        return np.unique(who * items + what)

    def some(keys: IntArray, count: float) -> IntArray:
        return rng.choice(keys, int(count * size), replace=False)

    view = drawn(int(15e6 * size))
    cart = np.unique(np.concatenate([some(view, 2e6), drawn(int(1e6 * size))]))
    buy = np.unique(np.concatenate([some(cart, 1e6), some(view, 0.6e6), drawn(int(0.4e6 * size))]))
    owner = buy // items
    last = np.r_[owner[1:] != owner[:-1], True] & (np.bincount(owner, minlength=users)[owner] > 1)
    edges = {
        name: Pairs(keys // items, keys % items) for name, keys in (("view", view), ("cart", cart), ("buy", buy[~last]))
    }
    valid = Pairs(buy[last] // items, buy[last] % items)
    vocabularies = Vocabulary(size=users, kind="user"), Vocabulary(size=items, kind="item")
    return mb.MultiBehaviorDataset("shop", *vocabularies, edges, "buy", {"valid": valid})


def main() -> None:
    """Measure one size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("size", type=float)
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    ds = shop(given.size)
    pairs = sum(len(each) for each in ds.edges.values())
    row = {"users": ds.num_users, "items": ds.num_items, "pairs": pairs}
    wall, start = time.perf_counter(), time.process_time()
    model = TwoStage(ds.graph, ds.target, behaviors=ds.behaviors, neighbors=100, kernel_users=100)
    model.learn(ds)
    row |= {"fit s": round(time.perf_counter() - wall), "fit CPU s": round(time.process_time() - start)}
    wall, start = time.perf_counter(), time.process_time()
    scorer = model.scorer()
    for first in range(0, ds.num_users, 4096):
        scorer.lists(np.arange(first, min(first + 4096, ds.num_users)))
    row |= {"lists s": round(time.perf_counter() - wall), "lists CPU s": round(time.process_time() - start)}
    row |= {
        "peak MiB": round(peak_memory_mb()),
        "cpu": cpu_name(),
        "command": f"python benchmarks/twostage_scale.py {given.size:g}",
    }
    add_rows(given.out, [row])


if __name__ == "__main__":
    main()
