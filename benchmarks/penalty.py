"""What a penalty changed: two runs that differ in it alone, epoch by epoch.

    mbgraph fit tmall10k --variant official --regularizer rex:weight=0 --out runs/without
    mbgraph fit tmall10k --variant official --regularizer rex:weight=0 --regularizer irmv2:of=parameters --out runs/with
    python benchmarks/penalty.py runs/without runs/with irmv2 -o benchmarks/results/irmv2_published.csv

A row for every epoch whose gradients were diagnosed: the main loss and the validation metric of both runs, the penalty,
and the gradient norms of the main loss and of the penalty in the second run, all on the same batch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mbgraph.bench.curves import epoch_records
from mbgraph.bench.report import write_rows
from mbgraph.run import Run


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("without", type=Path)
    parser.add_argument("with_it", metavar="with", type=Path)
    parser.add_argument("term", help="name of the penalty's term")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    both = (epoch_records(path / "metrics.jsonl") for path in (given.without, given.with_it))
    metric = Run.load(given.with_it).config.evaluation["metric"]
    rows = [
        {
            "epoch": with_it["epoch"],
            "main without": without["terms"]["main"],
            "main with": with_it["terms"]["main"],
            f"valid {metric} without": without["valid"][metric],
            f"valid {metric} with": with_it["valid"][metric],
            "penalty": with_it["terms"][given.term],
            "gradient of main": with_it["gradient_norms"]["main"],
            "gradient of penalty": with_it["gradient_norms"][given.term],
        }
        for without, with_it in zip(*both, strict=False)
        if with_it.get("gradient_norms")
    ]
    write_rows(given.out, [{name: f"{value:.8g}" for name, value in row.items()} for row in rows])


if __name__ == "__main__":
    main()
