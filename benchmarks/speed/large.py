"""What an epoch of large generated graphs takes with ``--batch-size auto``, and of a smaller one by blocks of users.

    python benchmarks/speed/large.py -o benchmarks/results/amd/speed_large.csv

Each graph is trained in a process of its own, as in ``mbgraph bench speed --part growth``. The load stands beside each
row: wall-clock means something where nothing else runs.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from mbgraph.bench.costs import Shape, run_apart
from mbgraph.bench.machine import copy_bandwidth, gemm_rate
from mbgraph.bench.report import add_rows
from mbgraph.machine import cpu_name

SHAPES = (
    Shape(3_000_000),
    Shape(3_000_000, block_users=1),
    Shape(30_000_000, batch="auto"),
    Shape(20_000_000, 1_000_000, batch="auto"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=int, nargs="+", default=range(len(SHAPES)), help="Numbers of graphs, from 0.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for row in run_apart([SHAPES[number] for number in given.shapes], copy_bandwidth(), gemm_rate()):
        load = round(os.getloadavg()[0], 1)
        add_rows(
            given.out, [{**row, "load": load, "cpu": cpu_name(), "threads": given.threads, "torch": torch.__version__}]
        )
        print(row, flush=True)


if __name__ == "__main__":
    main()
