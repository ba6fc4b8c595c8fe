"""Validation along training after as many propagations, by size of the batch: what ``--batch-size auto`` costs.

    python benchmarks/speed/batches.py tmall10k -o benchmarks/results/speed_batches.csv

A step propagates once over the whole graph whatever its batch, so steps are what is held equal. Batches are multiples
of the model's own, for the contrast in blocks of the own batch or among the whole one, and for each rule of the step
size. With ``--part blocks`` a step propagates over a block of users alone.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch

import mbgraph as mb
from mbgraph.bench.report import add_rows
from mbgraph.evaluation.evaluate import evaluate
from mbgraph.machine import cpu_name
from mbgraph.models.context import StepContext
from mbgraph.training import Trainer

RULES = {
    "none": lambda times: 1.0,
    "sqrt": math.sqrt,
    "linear": float,
    "sqrt of 10": lambda times: math.sqrt(10),
    "10": lambda times: 10.0,
}
"""Of the option ``lr_scaling``; the last two give the own batch the step sizes of one ten times as large."""
PARTS = {
    "batches": (
        (1, "batch", "none", 0),
        (1, "batch", "sqrt of 10", 0),
        (1, "batch", "10", 0),
        (5, "block", "none", 0),
        (5, "block", "sqrt", 0),
        (5, "block", "linear", 0),
        (10, "block", "none", 0),
        (10, "block", "sqrt", 0),
        (10, "block", "linear", 0),
        (10, "batch", "sqrt", 0),
    ),
    "blocks": ((1, "batch", "none", 0), (1, "batch", "none", 1024), (1, "batch", "none", 4096)),
}
"""Times the own batch, candidates of the contrast, rule of the step size, users whose pairs a step reads (0: all)."""


def curve(dataset, seed, times, contrast, rule, block_users, steps, every):
    """Yield a row after every so many steps."""
    model = mb.models.RMBRec(dataset.graph, dataset.target, rng=seed)
    own = model.options.training()
    regularizers = [
        entry.in_blocks(own.batch_size) if contrast == "block" and times > 1 else entry
        for entry in model.options.regularizers()
    ]
    training = own.replace(
        batch_size=times * own.batch_size, lr=own.lr * RULES[rule](times), block_users=block_users, diagnose_every=0
    )
    trainer = Trainer(model, dataset, regularizers, training=training, rng=seed, device="cpu")
    best, done, epoch, seconds = 0.0, 0, 0, 0.0
    while done < steps:
        epoch += 1
        for step, batch in enumerate(trainer.batches.epoch(epoch)):
            start = time.process_time()
            model.train()
            trainer._step(batch, StepContext(epoch, step, seed))
            seconds += time.process_time() - start
            done += 1
            if done % every == 0:
                model.eval()
                found = evaluate(model, dataset, split="valid", k=(10,)).metrics
                best = max(best, found["HR@10"])
                yield {
                    "dataset": dataset.name, "batch": training.batch_size, "times": times, "contrast": contrast,
                    "lr rule": rule, "lr": round(training.lr, 6), "block users": block_users, "seed": seed,
                    "propagations": done, "epochs": round(done / trainer.steps_per_epoch, 1),
                    "valid HR@10": round(found["HR@10"], 4), "valid NDCG@10": round(found["NDCG@10"], 4),
                    "best valid HR@10": round(best, 4), "CPU ms per step": round(1e3 * seconds / done, 1),
                }  # fmt: skip
            if done == steps:
                return


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2026])
    parser.add_argument("--part", choices=PARTS, default="batches")
    parser.add_argument("--cases", type=int, nargs="+", help="Numbers of cases of the part, from 0.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = mb.load_dataset(arguments.dataset)
    if not len(dataset.valid):
        dataset = mb.hold_out(dataset, split="valid", rng=0)
    machine = {"cpu": cpu_name(), "threads": arguments.threads, "torch": torch.__version__}
    cases = PARTS[arguments.part]
    for number in range(len(cases)) if arguments.cases is None else arguments.cases:
        for seed in arguments.seeds:
            for row in curve(dataset, seed, *cases[number], arguments.steps, arguments.every):
                add_rows(arguments.out, [{**row, **machine}])
            print(row, flush=True)


if __name__ == "__main__":
    main()
