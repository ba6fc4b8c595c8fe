"""Measure RecBole's LightGCN beside ours: target behavior only, same pairs, same epochs, same threads, in turns.

    python benchmarks/speed/peers.py taobao15k --peer-python PEER/bin/python -o benchmarks/results/speed_peers.csv

The peer lives in an environment of its own (`peer_recbole.py` says of what). An epoch is every target train edge once,
with one sampled negative, in batches of 2,048; an evaluation ranks all items for all users of valid and test.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

# as the command line does, before torch loads
os.environ.setdefault("GOMP_SPINCOUNT", "4000")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

import mbgraph as mb
from mbgraph.bench.report import write_rows
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import RunError, UsageError
from mbgraph.evaluation.evaluate import evaluate_splits
from mbgraph.machine import cpu_name
from mbgraph.models.lightgcn import LightGCN
from mbgraph.training.trainer import Trainer

SEED = 2026
REMEDY = 'pip install recbole==1.2.1 "torch<2.14" "numpy<2" "scipy<1.11" "pandas<2.2" "setuptools<80"'


def write_target(ds: MultiBehaviorDataset, folder: Path, name: str) -> None:
    """Write the target's train, valid and test pairs as RecBole's atomic files, numbered as in ``ds``."""
    place = folder / name
    place.mkdir(parents=True)
    for part, pairs in (("train", ds.edges[ds.target]), ("valid", ds.valid), ("test", ds.test)):
        with (place / f"{name}.{part}.inter").open("w", encoding="utf-8") as file:
            file.write("user_id:token\titem_id:token\n")
            file.writelines(
                f"{user}\t{item}\n" for user, item in zip(pairs.user.tolist(), pairs.item.tolist(), strict=True)
            )


def run_peer(python: str, folder: Path, name: str, threads: int, epochs: int, evaluations: int) -> dict[str, Any]:
    """Run RecBole once in its environment and return what it measured.

    Raises
    ------
    UsageError
        If there is no such interpreter, or RecBole is not installed beside it.
    RunError
        If RecBole fails.
    """
    program = Path(__file__).with_name("peer_recbole.py")
    counts = ["--threads", str(threads), "--epochs", str(epochs), "--evaluations", str(evaluations)]
    ours = ("PYTHONPATH", "GOMP_SPINCOUNT", "THP_MEM_ALLOC_ENABLE")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    environment["OMP_NUM_THREADS"] = str(threads)
    try:
        done = subprocess.run(
            [python, str(program), str(folder), name, *counts],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
    except OSError as error:
        raise UsageError(f"{python} does not start: {error.strerror}", f"make an environment and {REMEDY}") from error
    if "No module named 'recbole'" in done.stderr:
        raise UsageError(f"{python} has no RecBole", REMEDY)
    if done.returncode != 0:
        raise RunError(f"RecBole ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout.splitlines()[-1])


class Ours:
    """Our LightGCN on the same pairs, ready to be timed."""

    def __init__(self, ds: MultiBehaviorDataset) -> None:
        self.ds, self.epoch = ds, 0
        model = LightGCN(ds.graph, ds.target, rng=SEED)
        # as RecBole does: every target edge once per epoch
        self.trainer = Trainer(model, ds, rng=SEED, sampler="per-edge", diagnose_every=0, device="cpu")
        self.train()  # compiles

    def train(self) -> float:
        """Train one epoch and return its seconds."""
        self.epoch += 1
        start = time.perf_counter()
        self.trainer.train_epoch(self.epoch)
        return time.perf_counter() - start

    def evaluate(self) -> tuple[float, dict[str, float]]:
        """Rank valid and test; return the seconds and the metrics at test."""
        model = self.trainer.model.eval()
        start = time.perf_counter()
        results = evaluate_splits(model, self.ds)
        return time.perf_counter() - start, results["test"].metrics


def compare(ds: MultiBehaviorDataset, python: str, threads: int, turns: int) -> list[dict[str, Any]]:
    """Return a row per part of the work, medians over the turns; each turn is the peer's and then ours."""
    torch.set_num_threads(threads)
    ours = Ours(ds)
    ours.evaluate()
    seconds: dict[str, list[float]] = {"epoch": [], "evaluation": [], "peer epoch": [], "peer evaluation": []}
    per_turn, quality = 2, {}
    with tempfile.TemporaryDirectory() as scratch:
        write_target(ds, Path(scratch), ds.name)
        for turn in range(turns):
            peer = run_peer(python, Path(scratch), ds.name, threads, per_turn, 1)
            if peer["train_edges"] != len(ds.edges[ds.target]):
                raise RunError(f"RecBole trains on {peer['train_edges']} edges, we on {len(ds.edges[ds.target])}")
            seconds["peer epoch"] += peer["epochs"]
            seconds["peer evaluation"] += peer["evaluations"]
            for _ in range(per_turn):
                seconds["epoch"].append(ours.train())
            took, metrics = ours.evaluate()
            seconds["evaluation"].append(took)
            if turn == 0:  # both have seen every edge three times
                quality = {"HR@10 ours": metrics["HR@10"], "HR@10 RecBole": peer["test"]["hit@10"]}
    rows = []
    for part, key in (("training epoch", "epoch"), ("full ranking, valid and test", "evaluation")):
        mine, other = statistics.median(seconds[key]), statistics.median(seconds[f"peer {key}"])
        rows.append(
            {
                "dataset": ds.name,
                "part": part,
                "ours": round(mine, 4),
                "RecBole": round(other, 4),
                "ratio": round(other / mine, 2),
                "repeats": len(seconds[key]),
                **{name: round(value, 4) for name, value in quality.items()},
                "edges": peer["train_edges"],
                "users ours": ds.num_users,
                "users RecBole": peer["users"],
                "items ours": ds.num_items,
                "items RecBole": peer["items"],
                "recbole": peer["versions"]["recbole"],
                "torch RecBole": peer["versions"]["torch"],
                "torch": torch.__version__,
                "cpu": cpu_name(),
                "threads": threads,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--peer-python", required=True, help="the interpreter of RecBole's environment")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        rows = []
        for name in arguments.datasets:
            ds = mb.load_dataset(name)
            if not len(ds.valid):
                ds = mb.hold_out(ds, split="valid", rng=0)
            rows += compare(ds, arguments.peer_python, arguments.threads, arguments.turns)
    except (UsageError, RunError) as error:
        parser.exit(1, f"{error}\n")
    write_rows(arguments.out, rows)
    for row in rows:
        print(*(f"{key}={value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
