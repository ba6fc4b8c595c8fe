"""MB-CGCN from tables that LightGCN has trained on the first behavior, beside random ones.

    python benchmarks/pretrained.py tmall10k
    python benchmarks/pretrained.py tmall10k --pretrain 0 --patience 200

The README's run of the published code starts so, from tables that are not part of it. Here LightGCN, with the layers
that MB-CGCN has for its first behavior, is trained on that behavior's train pairs alone, for a number of epochs without
validation. A row is added to benchmarks/results/pretrained.csv: the best epoch by validation, and the test pairs, which
are ranked once with its weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import mbgraph as mb
from mbgraph.bench.report import add_rows, public_words
from mbgraph.config import FitConfig
from mbgraph.models import MBCGCN, LightGCN
from mbgraph.run import prepare_dataset

RESULTS = Path(__file__).parent / "results" / "pretrained.csv"


def trained_on_first(
    ds: mb.MultiBehaviorDataset, layers: int, epochs: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tables of LightGCN after some epochs on the pairs of the first behavior: (U, D), (I, D)."""
    first = ds.behaviors[0]
    alone = mb.MultiBehaviorDataset(f"{ds.name}-{first}", ds.users, ds.items, {first: ds.edges[first]}, first, {})
    model = LightGCN(alone.graph, first, rng=seed, num_layers=layers)
    mb.Trainer(model, alone, epochs=epochs, rng=seed).fit()
    return model.tables


def main() -> None:
    """Add a row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset")
    parser.add_argument("--pretrain", type=int, default=15, help="epochs on the first behavior; 0: random tables")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--patience", type=int, default=20)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    ds = prepare_dataset(FitConfig(dataset=given.dataset, seed=given.seed))
    model = MBCGCN(ds.graph, ds.target, behaviors=ds.behaviors, variant="official", rng=given.seed)
    if given.pretrain:
        tables = trained_on_first(ds, model.layers[ds.behaviors[0]], given.pretrain, given.seed)
        with torch.no_grad():
            for own, trained in zip(model.tables, tables, strict=True):
                own.copy_(trained)
    limits = {"epochs": given.epochs, "patience": given.patience}
    result = mb.Trainer(model, ds, rng=given.seed, **limits).fit()
    valid = max(record["valid"]["HR@10"] for record in result.records)
    test = mb.evaluate(model, ds, split="test", k=(10,))
    row = {
        "dataset": ds.name,
        "tables": f"after {given.pretrain} epochs on {ds.behaviors[0]}" if given.pretrain else "random",
        "seed": given.seed,
        "patience": given.patience,
        "epochs": result.epochs,
        "best epoch": result.best_epoch,
        "valid HR@10": f"{valid:.4f}",
        "last valid HR@10": f"{result.records[-1]['valid']['HR@10']:.4f}",
        "test HR@10": f"{test.metrics['HR@10']:.4f}",
        "test NDCG@10": f"{test.metrics['NDCG@10']:.4f}",
        "command": "python benchmarks/pretrained.py " + " ".join(public_words(sys.argv)),
    }
    add_rows(given.out, [row])


if __name__ == "__main__":
    main()
