"""Kill fits at random moments and resume them: ``python tests/fuzz/kills.py --rounds 100 --csv FILE``.

Every round ends in the numbers and the very weights of a fit that nobody killed, whatever was lost.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from corpus import tiny

from mbgraph.config import FitConfig
from mbgraph.data.formats.npz import write_npz
from mbgraph.run import fit, resume

OPTIONS = {"embedding_dim": 4, "num_layers": 1}
TRAINING = {"epochs": 60, "patience": 60, "batch_size": 16}


def start(data: Path, run: Path) -> int:
    """Fit or resume in a child of this process, which has imported everything and computed nothing; return its id."""
    child = os.fork()
    if child:
        return child
    try:
        if (run / "config.toml").is_file():
            resume(run)
        else:
            for file in sorted(run.iterdir()) if run.exists() else ():  # killed before it had written what it is
                file.unlink()
            fit(FitConfig(dataset=str(data), model="lightgcn", options=OPTIONS, training=TRAINING), run)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def wait(child: int, seconds: float | None) -> int | None:
    """Return how a child ended, None if it was killed because the time is over."""
    end = time.monotonic() + (1e9 if seconds is None else seconds)
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def ending(run: Path) -> tuple[object, bytes, bytes]:
    """Return what two equal runs share: the figures, the weights, the results by user."""
    told = json.loads((run / "test.json").read_text())
    figures = {key: told[key] for key in ("valid", "test", "epochs", "best_epoch")}
    return figures, (run / "model.safetensors").read_bytes(), (run / "per_user.npz").read_bytes()


def one_round(data: Path, run: Path, rng: random.Random, seconds: float) -> tuple[int, bool]:
    """Fit, kill, resume and kill until it ends by itself; return the kills, and whether it ended well."""
    kills = 0
    while True:
        # most kills fall into the training, which is the end of a child's life
        ended = wait(start(data, run), rng.uniform(0.3, 1.0) * seconds if kills < 3 else None)
        if ended is not None:
            return kills, ended == 0
        kills += 1


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
        for _ in range(2):  # the first one may have to compile
            shutil.rmtree(whole, ignore_errors=True)
            started = time.perf_counter()
            assert wait(start(data, whole), None) == 0
        seconds, wanted = time.perf_counter() - started, ending(whole)
        while rounds < chosen.rounds and time.monotonic() < end:
            run = Path(folder) / f"run-{rounds}"
            done, well = one_round(data, run, rng, seconds)
            rounds, kills = rounds + 1, kills + done
            same = well and ending(run) == wanted and not list(run.glob(".*.tmp"))
            equal += same
            if not same:
                sys.stderr.write(f"round {rounds}, {done} kills: not the same ending\n")
    target = chosen.csv.open("w", newline="") if chosen.csv else sys.stdout
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(["rounds", "kills", "equal endings"])
    writer.writerow([rounds, kills, equal])
    sys.exit(0 if rounds == equal else 1)


if __name__ == "__main__":
    main()
