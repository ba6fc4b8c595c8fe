"""Put the validation curves of several runs side by side, a row per epoch.

    python benchmarks/speed/curves.py RUN... -o benchmarks/results/speed_bfloat16_curves.csv

Runs are grouped by their ``row_dtype``; a cell is the mean over the group's runs of the metric they were selected on.
A run that has stopped keeps the value of its best epoch, which is what it would be used with.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from mbgraph.bench.curves import epoch_records
from mbgraph.bench.report import write_rows
from mbgraph.run import Run

EPOCHS = (1, 5, 10, 20, 40, 60, 80, 100, 120, 140, 160)


def curve(path: Path) -> tuple[str, list[float]]:
    """Return a run's row type and its validation metric per epoch."""
    config = Run.load(path).config
    metric = config.evaluation["metric"]
    values = [record["valid"][metric] for record in epoch_records(path / "metrics.jsonl")]
    return config.options.get("row_dtype", "float32"), values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    groups: dict[str, list[list[float]]] = {}
    for path in arguments.runs:
        row_dtype, values = curve(path)
        groups.setdefault(row_dtype, []).append(values)
    rows = []
    for epoch in EPOCHS:
        row: dict[str, float | int] = {"epoch": epoch}
        for name, curves in sorted(groups.items(), reverse=True):
            known = [values[epoch - 1] if epoch <= len(values) else max(values) for values in curves]
            row[f"{name} ({len(curves)} seeds)"] = round(sum(known) / len(known), 4)
        rows.append(row)
    write_rows(arguments.out, rows)
    with arguments.out.open(encoding="utf-8") as file:
        for line in csv.reader(file):
            print(*line, sep="\t")


if __name__ == "__main__":
    main()
