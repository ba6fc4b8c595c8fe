"""Seconds and peak memory of `mbgraph data import` on generated event logs.

    python benchmarks/import_events.py --rows 5000000 50000000

A log in the manner of a large shop's: three million users and two hundred thousand items, few of each with most of the
events, users who come back to the same items, ids of seven and nine digits, dates as text, in the order of time, and
columns that nobody asks for. It is written piece by piece into a temporary folder and deleted after it was measured.
The import runs in a process of its own; the system tells its peak resident memory when it ends.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet

USERS, ITEMS = 3_000_000, 200_000
EVENTS, SHARES = ("view", "cart", "purchase", "remove_from_cart"), (0.90, 0.06, 0.025, 0.015)
PIECE = 1_000_000
RESULTS = Path(__file__).parent / "results" / "import_events.csv"
COLUMNS = ["--user", "user_id", "--item", "product_id", "--behavior", "event_type", "--time", "event_time"]
COLUMNS += ["--target", "purchase"]
COMMAND = "from mbgraph.cli.main import main; main()"
VARIANTS = {
    "csv": {"format": "csv"},
    "parquet": {"format": "parquet"},
    "csv, text ids, no order": {"format": "csv", "text": True, "unordered": True},
}


def piece(rng: np.random.Generator, start: int, rows: int, total: int, *, text: bool, unordered: bool) -> pa.Table:
    """Return ``rows`` events from the ``start``-th of ``total``; a month passes in all of them."""
    user = (USERS * rng.random(rows) ** 2.5).astype(np.int64)
    taste = (user * 2_654_435_761 + (60 * rng.random(rows) ** 2).astype(np.int64) * 40_503_577) % 2**32
    item = (ITEMS * (taste / 2**32) ** 3).astype(np.int64)
    month = 31 * 86_400
    second = rng.random(rows) * month if unordered else np.sort(start + rows * rng.random(rows)) * (month / total)
    stamp = pa.array((1_569_888_000 + second).astype(np.int64)).cast(pa.timestamp("s"))
    # a fixed stride keeps neighbours apart, as real ids do
    ids = pa.array(500_000_000 + user * 77 % 99_999_989)
    if text:
        ids = pa.array([f"u-{value:x}" for value in ids.to_numpy()])
    return pa.table(
        {
            "event_time": pa.compute.strftime(stamp, "%Y-%m-%d %H:%M:%S UTC"),
            "event_type": pa.array(np.array(EVENTS)[rng.choice(len(EVENTS), rows, p=SHARES)]),
            "product_id": pa.array(1_000_000 + item * 31),
            "brand": pa.array(np.array(["acme", "lucky", ""])[rng.integers(0, 3, rows)]),
            "price": pa.array(np.round(rng.random(rows) * 900, 2)),
            "user_id": ids,
        }
    )


def write_log(path: Path, rows: int, form: str, *, text: bool, unordered: bool) -> None:
    """Write a log of ``rows`` events; the same rows give the same log."""
    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, PIECE):
        table = piece(rng, start, min(PIECE, rows - start), rows, text=text, unordered=unordered)
        if writer is None:
            make = parquet.ParquetWriter if form == "parquet" else arrow_csv.CSVWriter
            writer = make(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def measure(log: Path, out: Path) -> tuple[float, float, dict]:
    """Return seconds, peak resident memory in MiB and what the import says of the dataset."""
    arguments = [sys.executable, "-c", COMMAND, "data", "import", str(log), *COLUMNS, "--json", "-o", str(out)]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(arguments, stdout=said)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if child.returncode:
            raise SystemExit(f"the import failed with exit code {child.returncode}")
        said.seek(0)
        facts = json.load(said)
    return seconds, usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2), facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000_000, 50_000_000])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    lines = []
    for rows in arguments.rows:
        for variant in arguments.variants:
            options = dict(VARIANTS[variant])
            with tempfile.TemporaryDirectory(prefix="mbgraph-import-") as folder:
                log = Path(folder) / f"events.{options['format']}"
                write_log(
                    log,
                    rows,
                    options["format"],
                    text=options.get("text", False),
                    unordered=options.get("unordered", False),
                )
                size = log.stat().st_size / 1e6
                seconds, peak, facts = measure(log, Path(folder) / "shop")
            lines.append(
                {
                    "events": rows,
                    "log": variant,
                    "file_mb": round(size),
                    "seconds": round(seconds, 1),
                    "peak_mb": round(peak),
                    "users": facts["users"],
                    "items": facts["items"],
                    "pairs": facts["events"] - facts["repeated_events"],
                    "threads": os.environ.get("OMP_NUM_THREADS", ""),
                }
            )
            print(lines[-1], flush=True)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    with arguments.results.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
