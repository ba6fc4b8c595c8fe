"""Fuzz for a while and write down what came of it: ``python tests/fuzz/fuzz.py --seconds 3600 --csv FILE``.

Inputs are drawn by hypothesis from a seed, in processes of their own: one that dies is a crash, one that says nothing
for minutes a hang. Bad results are printed with the seed that makes them again.
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SILENCE = 150.0
OUTCOMES = ("fine", "one line", "traceback", "hang", "memory", "silent", "crash")


def worker(seed: int, inputs: int, kinds: list[str]) -> None:
    """Run inputs of one seed and tell, a JSON line each, what came of them."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    sys.path.insert(0, str(HERE))
    from harness import Harness, cases

    told = sys.stdout
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(Path(folder).resolve(), with_runs=bool({"run", "flag"} & set(kinds)))
        count = 0

        @seeded(seed)
        @settings(
            max_examples=inputs,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(cases(kinds))
        def fuzz(case) -> None:
            nonlocal count
            count += 1
            told.write(json.dumps({"input": repr(case)}) + "\n")
            told.flush()
            for result in harness.run(case):
                entry = {key: value for key, value in vars(result).items() if not isinstance(value, set)}
                entry.update(outside=sorted(result.outside), executed=sorted(result.executed), bad=result.bad)
                told.write(json.dumps(entry) + "\n")
                told.flush()

        fuzz()


def main() -> None:
    """Run workers until the time is over, then write one row per kind of input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=100, help="per process")
    parser.add_argument("--kinds", default="data,log,run,flag")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    kinds = chosen.kinds.split(",")
    if chosen.worker is not None:
        worker(chosen.worker, chosen.inputs, kinds)
        return
    totals: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    peaks: dict[str, float] = collections.defaultdict(float)
    end, seed, bad = time.monotonic() + chosen.seconds, chosen.seed, 0
    while time.monotonic() < end:
        bad += follow(seed, chosen, kinds, totals, peaks, end)
        seed += 1
    columns = ["kind", "inputs", "calls", *OUTCOMES, "writes outside", "executed", "peak MiB"]
    rows = [[kind, *(totals[kind][name] for name in columns[1:-1]), f"{peaks[kind]:.0f}"] for kind in sorted(totals)]
    rows.append(
        ["all", *(sum(row[place] for row in rows) for place in range(1, len(columns) - 1)), max(peaks.values())]
    )
    rows[-1][-1] = f"{rows[-1][-1]:.0f}"
    target = chosen.csv.open("w", newline="") if chosen.csv else sys.stdout
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    sys.stderr.write(f"seeds {chosen.seed} to {seed - 1}, {bad} bad results\n")
    sys.exit(1 if bad else 0)


def follow(seed: int, chosen, kinds: list[str], totals, peaks, end: float) -> int:
    """Read what a worker tells until it ends, dies or falls silent; return the number of bad results."""
    import selectors

    command = [sys.executable, __file__, "--worker", str(seed), "--inputs", str(chosen.inputs), "--kinds", chosen.kinds]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    kind, current, bad = kinds[0], "", 0
    while True:
        if not selector.select(SILENCE * (4 if not current else 1)):
            totals[kind]["hang"] += 1
            bad += told(seed, "hang", current)
            process.kill()
            break
        line = process.stdout.readline()
        if not line:
            break
        entry = json.loads(line)
        if "input" in entry:
            if time.monotonic() > end:
                process.terminate()
                process.wait()
                return bad
            current = entry["input"]
            kind = current.partition("kind='")[2].partition("'")[0]
            totals[kind]["inputs"] += 1
            continue
        totals[kind]["calls"] += 1
        totals[kind][entry["outcome"]] += 1
        totals[kind]["writes outside"] += len(entry["outside"])
        totals[kind]["executed"] += len(entry["executed"])
        peaks[kind] = max(peaks[kind], entry["peak_mib"])
        if entry["bad"]:
            bad += told(seed, json.dumps(entry), current)
    if process.wait() not in (0, -9):
        totals[kind]["crash"] += 1
        bad += told(seed, f"the process ended with {process.returncode}", current)
    return bad


def told(seed: int, what: str, case: str) -> int:
    """Print a bad result, and count it."""
    sys.stderr.write(f"seed {seed}: {what}\n  {case}\n")
    sys.stderr.flush()
    return 1


if __name__ == "__main__":
    main()
