"""The corpus: one tiny dataset of our own generator in every format that is read, logs of it, and run directories."""

from __future__ import annotations

import gzip
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sparse
from click.testing import CliRunner

from mbgraph.cli.main import cli
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats import write
from mbgraph.data.synthetic import Auxiliary, SyntheticConfig, generate

USERS, ITEMS = 14, 12


def tiny() -> MultiBehaviorDataset:
    """Return the dataset."""
    auxiliary = {"view": Auxiliary(edges=70, bar=0.5), "cart": Auxiliary(edges=30, bar=0.3)}
    return generate(SyntheticConfig(num_users=USERS, num_items=ITEMS, auxiliary=auxiliary), rng=1, name="tiny")


def _lines(pairs, base=0, sep=" "):
    return "".join(
        f"{u + base}{sep}{i + base}\n" for u, i in zip(pairs.user.tolist(), pairs.item.tolist(), strict=True)
    )


def _lists(pairs, base=0):
    table: dict[int, list[int]] = {}
    for user, item in zip(pairs.user.tolist(), pairs.item.tolist(), strict=True):
        table.setdefault(user + base, []).append(item + base)
    return table


def _adjacency(pairs):
    return "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in _lists(pairs).items())


def _matrix(pairs):
    ones = np.ones(len(pairs), np.int8)
    return sparse.csr_matrix((ones, (pairs.user, pairs.item)), shape=(USERS, ITEMS))


def _folder(root: Path, name: str, files: dict[str, str | bytes]) -> Path:
    for file, content in files.items():
        path = root / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root / name


def make_data(root: Path) -> dict[str, Path]:
    """Write the dataset in every format; return where each lies."""
    ds = tiny()
    made = {}
    for format in ("npz", "pairs", "recbole"):
        write(ds, root / format, format)
        made[format] = root / format
    parts = {**ds.edges, **ds.splits}
    sizes = json.dumps({"user": USERS, "item": ITEMS})
    made["bare-pairs"] = _folder(
        root, "bare-pairs", {"count.txt": sizes, **{f"{name}.txt": _lines(pairs, 1) for name, pairs in parts.items()}}
    )
    dicts = {f"{name}_dict.txt": json.dumps(_lists(pairs, 1)) for name, pairs in parts.items()}
    made["dicts"] = _folder(root, "dicts", {"count.txt": sizes, **dicts})
    tables = {f"{name}.train.txt": "uid\tsid\n" + _lines(pairs, 0, "\t") for name, pairs in ds.edges.items()}
    made["ehcf"] = _folder(root, "ehcf", {**tables, "buy.test.txt": "uid\tsid\n" + _lines(ds.test, 0, "\t")})
    with zipfile.ZipFile(root / "ehcf" / "cart.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cart.csv", tables["cart.train.txt"])
    (root / "ehcf" / "cart.train.txt").unlink()
    others = {f"{name}.txt": _adjacency(ds.edges[name]) for name in ds.auxiliary}
    held = {"test.txt": _adjacency(ds.test)}
    made["adjacency"] = _folder(root, "adjacency", {"train.txt": _adjacency(ds.edges["buy"]), **others, **held})
    nested = {f"{name}/train.txt": _adjacency(pairs) for name, pairs in ds.edges.items()}
    made["mbcgcn"] = _folder(root, "mbcgcn", {**nested, "buy/test.txt": _adjacency(ds.test), **held})
    trained = {f"trn_{name}": pickle.dumps(_matrix(pairs)) for name, pairs in ds.edges.items()}
    last = [None] * USERS
    for user, item in zip(ds.test.user.tolist(), ds.test.item.tolist(), strict=True):
        last[user] = item
    made["csr-pickle"] = _folder(root, "csr-pickle", {**trained, "tst_int": pickle.dumps(last)})
    mats = {f"train_mat_{name}.pkl": pickle.dumps(_matrix(pairs), 2) for name, pairs in ds.edges.items()}
    made["sslrec"] = _folder(root, "sslrec", {**mats, "test_mat.pkl": pickle.dumps(_matrix(ds.test).tocoo())})
    flat = {"train.txt": _lines(ds.edges["buy"]), "test.txt": _lines(ds.test), "view.txt": _lines(ds.edges["view"])}
    made["mbgcn"] = _folder(root, "mbgcn", {"data_size.txt": f"{USERS} {ITEMS}\n", **flat})
    by_part = {f"{name}_train": _lines(pairs) for name, pairs in ds.edges.items()}
    made["by-part"] = _folder(root, "by-part", {**by_part, "buy_test": _lines(ds.test)})
    rows = [(u, i, name, n) for name, pairs in ds.edges.items()
            for n, (u, i) in enumerate(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))]  # fmt: skip
    made["missl"] = root / "missl.txt"
    made["missl"].write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return made


def make_logs(root: Path) -> dict[str, Path]:
    """Write an event log in every kind of file."""
    ds = tiny()
    rows = [(f"u{u}", i, name, 10 * n) for name, pairs in ds.edges.items()
            for n, (u, i) in enumerate(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))]  # fmt: skip
    log = pd.DataFrame(rows, columns=["user", "item", "behavior", "time"])
    made = {name: root / f"log.{name}" for name in ("csv", "csv.gz", "json", "json.gz", "parquet", "inter")}
    text = log.to_csv(index=False).encode()
    lines = log.to_json(orient="records", lines=True).encode()
    made["csv"].write_bytes(text)
    made["csv.gz"].write_bytes(gzip.compress(text, mtime=0))
    made["json"].write_bytes(lines)
    made["json.gz"].write_bytes(gzip.compress(lines, mtime=0))
    log.to_parquet(made["parquet"])
    head = "user_id:token\titem_id:token\tbehavior:token\ttimestamp:float\n"
    made["inter"].write_bytes(head.encode() + log.to_csv(index=False, header=False, sep="\t").encode())
    return made


def make_runs(root: Path, data: Path) -> dict[str, Path]:
    """Fit two models that are made in no time, and export one."""
    made = {}
    quick = ["--quiet", "--epochs", "2", "--batch-size", "64", "--set", "embedding_dim=4", "--set", "num_layers=1"]
    for name, arguments in (("lightgcn", quick), ("popularity", ["--quiet"])):
        made[name] = root / f"run-{name}"
        done = CliRunner().invoke(cli, ["fit", str(data), "--model", name, "--out", str(made[name]), *arguments])
        assert done.exit_code == 0, done.output
    return made
