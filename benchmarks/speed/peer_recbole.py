"""RecBole's LightGCN, timed inside RecBole's own environment; `peers.py` starts it.

    python peer_recbole.py FOLDER NAME --threads 2 --epochs 6 --evaluations 3

``FOLDER/NAME`` holds ``NAME.train.inter``, ``NAME.valid.inter`` and ``NAME.test.inter``. The last line on stdout is one
JSON object. It needs ``recbole==1.2.1`` beside ``"torch<2.14" "numpy<2" "scipy<1.11" "pandas<2.2" "setuptools<80"``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time

import numpy
import recbole
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import LightGCN
from recbole.trainer import Trainer
from recbole.utils import init_seed


def measure(arguments: argparse.Namespace, scratch: str) -> dict[str, object]:
    """Train and evaluate; the first epoch and the first evaluation of each split do not count."""
    settings = {
        "data_path": arguments.folder,
        "checkpoint_dir": scratch,
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "use_gpu": False,
        "seed": arguments.seed,
        "show_progress": False,
        "epochs": arguments.epochs,
        "embedding_size": 64,
        "n_layers": 3,
        "reg_weight": 1e-4,
        "learning_rate": 1e-3,
        "train_batch_size": arguments.batch_size,
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False},
        "eval_args": {"group_by": "user", "order": "RO", "mode": "full"},
        "metrics": ["Hit", "NDCG"],
        "topk": [10, 20],
        "valid_metric": "Hit@10",
    }
    start = time.perf_counter()
    config = Config(model="LightGCN", dataset=arguments.name, config_dict=settings)
    dataset = create_dataset(config)
    # RecBole counts scores, not users: its default of 4,096 would rank one user at a time
    config["eval_batch_size"] = arguments.users_at_once * dataset.item_num
    init_seed(arguments.seed, True)
    train, valid, test = data_preparation(config, dataset)
    model = LightGCN(config, train.dataset)
    trainer = Trainer(config, model)
    ready = time.perf_counter() - start

    epochs = []
    for epoch in range(arguments.epochs + 1):
        start = time.perf_counter()
        trainer._train_epoch(train, epoch)
        epochs.append(time.perf_counter() - start)
    evaluations = []
    for _ in range(arguments.evaluations + 1):
        model.train()
        model.restore_user_e = model.restore_item_e = None  # otherwise the second evaluation encodes nothing
        start = time.perf_counter()
        for part in (valid, test):
            result = trainer.evaluate(part, load_best_model=False)
        evaluations.append(time.perf_counter() - start)
    return {
        "ready": ready,
        "epochs": epochs[1:],
        "evaluations": evaluations[1:],
        "train_edges": len(train.dataset),
        "users": dataset.user_num - 1,  # its row 0 is nobody
        "items": dataset.item_num - 1,
        "users_evaluated": [len(part.uid_list) for part in (valid, test)],
        "test": {name: float(value) for name, value in result.items()},
        "versions": {"recbole": recbole.__version__, "torch": torch.__version__, "numpy": numpy.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("name")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5, help="that count, after one that does not")
    parser.add_argument("--evaluations", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--users-at-once", type=int, default=256)
    parser.add_argument("--seed", type=int, default=2026)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sys.argv = sys.argv[:1]  # RecBole reads the command line too
    arguments.folder = os.path.abspath(arguments.folder)
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        os.chdir(scratch)  # it leaves logs in the folder it works in
        outcome = measure(arguments, scratch)
        os.chdir(os.path.dirname(scratch))
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
