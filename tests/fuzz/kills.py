"""Kill fits at random moments and resume them: ``python tests/fuzz/kills.py --rounds 100 --csv FILE``.

Every round ends in the numbers and the very weights of a fit that nobody killed, whatever was lost.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from corpus import tiny

from mbgraph.data.formats.npz import write_npz

FIT = [
    "--model",
    "lightgcn",
    "--epochs",
    "60",
    "--patience",
    "60",
    "--batch-size",
    "16",
    "--quiet",
    "--set",
    "embedding_dim=4",
]


def mbgraph(*arguments: str) -> list[str]:
    """Return a command line."""
    return [sys.executable, "-m", "mbgraph", *arguments]


def ending(run: Path) -> tuple[object, bytes, bytes]:
    """Return what two equal runs share: the figures, the weights, the results by user."""
    told = json.loads((run / "test.json").read_text())
    figures = {key: told[key] for key in ("valid", "test", "epochs", "best_epoch")}
    return figures, (run / "model.safetensors").read_bytes(), (run / "per_user.npz").read_bytes()


def one_round(data: Path, run: Path, rng: random.Random, seconds: float) -> tuple[int, str]:
    """Fit, kill, resume and kill until it ends by itself; return the kills, and what went wrong or nothing."""
    kills = 0
    while True:
        again = (run / "config.toml").is_file()
        if not again and run.exists():  # killed before it had written what it is
            for file in sorted(run.iterdir()):
                file.unlink()
        command = (
            mbgraph("fit", "--resume", str(run), "--quiet")
            if again
            else mbgraph("fit", str(data), "--out", str(run), *FIT)
        )
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        patience = rng.uniform(0.5, 1.0) * seconds if kills < 3 else None
        try:
            _, said = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        return kills, "" if process.returncode == 0 else said[-300:]


def main() -> None:
    """Run rounds and write one row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no round after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path)
    chosen = parser.parse_args()
    rng, end = random.Random(chosen.seed), time.monotonic() + chosen.seconds
    rounds = kills = equal = 0
    with tempfile.TemporaryDirectory() as folder:
        data, whole = Path(folder) / "tiny", Path(folder) / "whole"
        write_npz(tiny(), data)
        started = time.perf_counter()
        subprocess.run(mbgraph("fit", str(data), "--out", str(whole), *FIT), check=True, stdout=subprocess.DEVNULL)
        seconds, wanted = time.perf_counter() - started, ending(whole)
        while rounds < chosen.rounds and time.monotonic() < end:
            run = Path(folder) / f"run-{rounds}"
            done, wrong = one_round(data, run, rng, seconds)
            rounds, kills = rounds + 1, kills + done
            same = not wrong and ending(run) == wanted and not list(run.glob(".*.tmp"))
            equal += same
            if not same:
                sys.stderr.write(f"round {rounds}, {done} kills: {wrong or 'another ending'}\n")
    target = chosen.csv.open("w", newline="") if chosen.csv else sys.stdout
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(["rounds", "kills", "equal endings"])
    writer.writerow([rounds, kills, equal])
    sys.exit(0 if rounds == equal else 1)


if __name__ == "__main__":
    main()
