"""Test metrics and the risk of every behavior, epoch by epoch, of one training of RMBRec as published.

    python benchmarks/epochs.py beibei --validation none --epochs 100 --infonce 0.8
    python benchmarks/epochs.py tmall10k

It answers two questions about published figures. What is selecting the epoch on the test pairs worth? And what do the
rows of padding do, which stand for users without an edge in a behavior: their risk is ln 2 whatever the model learns,
so the risk of a behavior that few users have cannot move. Test pairs are looked at and choose nothing here.

Every epoch is a row of benchmarks/results/epochs.csv, every training one of benchmarks/results/epochs_summary.csv.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import mbgraph as mb
from mbgraph import run as runs
from mbgraph.bench.report import add_rows
from mbgraph.config import FitConfig
from mbgraph.models.context import StepContext
from mbgraph.nn.losses import bpr
from mbgraph.training.callbacks import Callback
from mbgraph.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results"


class Watch(Callback):
    """Notes what a training has come to after every epoch, and the risks after some."""

    def __init__(self, every: int) -> None:
        self.every, self.rows = every, list[dict[str, Any]]()

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Rank the test pairs and, where the epoch is one of them, average the risks over its batches."""
        trainer.model.eval()
        test = mb.evaluate(trainer.model, trainer.dataset, k=(10,)).metrics
        row = {"epoch": record["epoch"], "valid HR@10": record.get("valid", {}).get("HR@10")}
        row |= {f"test {name}": test[name] for name in ("HR@10", "NDCG@10")}
        if record["epoch"] == 1 or record["epoch"] % self.every == 0:
            row |= risks(trainer, record["epoch"])
        self.rows.append(row)


@torch.no_grad()
def risks(trainer: Trainer, epoch: int) -> dict[str, float]:
    """Return per behavior the share of padded rows, and the mean loss of all rows and of the real ones."""
    margins: dict[str, list[torch.Tensor]] = {}
    for step, batch in enumerate(trainer.batches.epoch(epoch)):
        for behavior, margin in trainer.model(batch, StepContext(epoch, step, trainer.rng)).margins.items():
            margins.setdefault(behavior, []).append(margin.flatten())
    found = {}
    for behavior, parts in margins.items():
        margin = torch.cat(parts)  # (rows of the epoch,)
        loss, is_real = bpr(margin), margin != 0  # a padded row's two items are the same one
        found[f"padded {behavior}"] = 1 - float(is_real.double().mean())
        found[f"risk {behavior}"] = float(loss.mean())
        found[f"real risk {behavior}"] = float(loss[is_real].mean())
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what selection on validation and on test come to, and where the risks began and ended."""
    # without validation the last epoch is taken
    chosen = rows[-1] if rows[-1]["valid HR@10"] is None else max(rows, key=lambda row: row["valid HR@10"])
    best = max(rows, key=lambda row: row["test HR@10"])
    facts = {
        "epochs": len(rows),
        "chosen epoch": chosen["epoch"],
        "chosen HR@10": chosen["test HR@10"],
        "chosen NDCG@10": chosen["test NDCG@10"],
        "best epoch": best["epoch"],
        "best HR@10": best["test HR@10"],
        "best NDCG@10": best["test NDCG@10"],
        "gain": best["test HR@10"] / chosen["test HR@10"] - 1,
    }
    measured = [row for row in rows if any(name.startswith("risk ") for name in row)]
    for name in (name for name in measured[0] if name.startswith("risk ")):
        behavior = name.removeprefix("risk ")
        facts[f"padded {behavior}"] = measured[0][f"padded {behavior}"]
        for kind in ("risk", "real risk"):
            facts[f"first {kind} {behavior}"] = measured[0][f"{kind} {behavior}"]
            facts[f"last {kind} {behavior}"] = measured[-1][f"{kind} {behavior}"]
    return facts


def add(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to a CSV file, their numbers rounded."""
    add_rows(path, [{name: _shown(value) for name, value in row.items()} for row in rows])


def _shown(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def main() -> None:
    """Train once and write what was seen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--validation", default="auto")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--every", type=int, default=10, help="epochs between two looks at the risks")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--infonce", type=float, help="weight of the contrast")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    config = FitConfig(
        dataset=given.dataset,
        variant="official",
        seed=given.seed,
        validation=given.validation,
        threads=given.threads,
        training={"epochs": given.epochs},
        regularizers=[] if given.infonce is None else [{"name": "infonce", "weight": given.infonce}],
    )
    watch = Watch(given.every)
    with tempfile.TemporaryDirectory() as folder:
        runs.fit(config, Path(folder) / "run", [watch])
    label = {"dataset": given.dataset, "seed": given.seed, "validation": given.validation}
    command = "python benchmarks/epochs.py " + " ".join(sys.argv[1:])
    add(given.out / "epochs.csv", [label | row for row in watch.rows])
    add(given.out / "epochs_summary.csv", [label | summary(watch.rows) | {"command": command}])


if __name__ == "__main__":
    main()
