"""Measure our own training steps beside those of another commit of ours: same data, options and batches, in turns.

    git worktree add ../before 2190c77
    python benchmarks/speed/changes.py ../before demo:smbrec tmall10k:uipl -o benchmarks/results/speed_changes.csv

Both sides take the steps of `references.py`, each in a process of its own that imports its own checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

OURS = Path(__file__).resolve().parents[2]
_WORKER = """
import json, sys
dataset, model, threads, checkout = sys.argv[1:]
from references import REFERENCES, Ours, mb, torch
assert mb.__file__.startswith(checkout), mb.__file__
torch.set_num_threads(int(threads))
ds = mb.load_dataset(dataset)
if not len(ds.valid):
    ds = mb.hold_out(ds, split="valid", rng=0)
ours = Ours(REFERENCES[model], ds)
ours.steps(2)  # compiles
for line in sys.stdin:
    sys.stdout.write(json.dumps(ours.steps(int(line))) + "\\n")
    sys.stdout.flush()
"""


def start(checkout: Path, dataset: str, model: str, threads: int) -> subprocess.Popen[str]:
    """Start a process that takes as many steps as it is told and answers with what they took."""
    paths = [str(checkout), str(checkout / "benchmarks" / "speed")]
    return subprocess.Popen(
        [sys.executable, "-c", _WORKER, dataset, model, str(threads), str(checkout)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=checkout,  # where Python looks first
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def measure(before: Path, dataset: str, model: str, threads: int, turns: int) -> dict[str, object]:
    """Return the row of one model and dataset: medians of one step of either side per turn."""
    sides = {"before": start(before, dataset, model, threads), "now": start(OURS, dataset, model, threads)}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, process in sides.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("1\n")
            process.stdin.flush()
            taken[name] += json.loads(process.stdout.readline())
    for process in sides.values():
        process.communicate()
    cpu = {name: statistics.median(step["cpu"] for step in steps) for name, steps in taken.items()}
    loss = {name: statistics.mean(step["loss"] for step in steps) for name, steps in taken.items()}
    return {
        "model": model,
        "dataset": dataset,
        "cpu ms before": round(1000 * cpu["before"], 1),
        "cpu ms now": round(1000 * cpu["now"], 1),
        "ratio": round(cpu["before"] / cpu["now"], 2),
        "loss before": round(loss["before"], 4),
        "loss now": round(loss["now"], 4),
        "steps": turns,
        "threads": threads,
        "load": round(os.getloadavg()[0], 1),
        "command": f"changes.py BEFORE {dataset}:{model} --turns {turns} --threads {threads}",
    }


def main() -> None:
    from mbgraph.bench.report import read_rows, write_rows
    from mbgraph.machine import cpu_name

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout of the other commit")
    parser.add_argument("cases", nargs="+", metavar="DATASET:MODEL")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    for case in arguments.cases:
        dataset, _, model = case.partition(":")
        row = measure(arguments.before.resolve(), dataset, model, arguments.threads, arguments.turns)
        old = read_rows(arguments.out) if arguments.out.exists() else []
        kept = [entry for entry in old if (entry["model"], entry["dataset"]) != (model, dataset)]
        write_rows(arguments.out, [*kept, {**row, "cpu": cpu_name()}])


if __name__ == "__main__":
    main()
