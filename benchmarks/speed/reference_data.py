"""What `references.py` needs to know of each published program: where it is, its arguments, and its files of data."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from mbgraph.bench.speed import write_pair_files
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs
from mbgraph.models.sequences import Sequences
from mbgraph.nn import swing
from mbgraph.nn.relations import Relations

__all__ = ["REFERENCES", "Reference", "lists", "write_dictionaries", "write_lists", "write_weighted"]

YAN = {3: ("view", "cart", "buy"), 4: ("click", "collect", "cart", "buy")}  # names in files, by number of behaviors


SMBREC_BATCH = 1024  # published 4,096, which is half of all pairs of a small dataset


@dataclass(frozen=True)
class Reference:
    """A published program that trains on a CPU."""

    model: str
    repository: str
    commit: str
    program: str
    """The file that is run, or ``missl``."""
    write: Callable[[MultiBehaviorDataset, Path], list[str]]
    """Writes a dataset where the program, running in a folder, looks for it; returns its arguments."""
    changes: Mapping[str, str] = field(default_factory=dict)
    """What is put right from outside, by name of the patch."""
    options: Mapping[str, Any] = field(default_factory=lambda: {"variant": "official"})
    """Options of our model that make the same work."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Ours, where the model's own are others."""
    answers: str = ""
    sampler: str = ""
    behaviors: tuple[int, ...] = (3, 4)
    """Numbers of behaviors that it can train on."""


# --- files ----------------------------------------------------------------------------------------------------------


def lists(*parts: Pairs) -> dict[int, list[int]]:
    """Return the distinct items of every user with any, both in order."""
    rows = np.unique(np.concatenate([np.stack([pairs.user, pairs.item], 1) for pairs in parts]), axis=0)
    users, starts = np.unique(rows[:, 0], return_index=True)
    return {user: items.tolist() for user, items in zip(users.tolist(), np.split(rows[:, 1], starts[1:]), strict=True)}


def write_dictionaries(ds: MultiBehaviorDataset, folder: Path) -> None:
    """Write what the programs around CRGCN and RMBRec read: pairs and JSON dictionaries, ids from 1."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():  # scripts that a checkout keeps there
        shutil.rmtree(folder)
    names = YAN[len(ds.behaviors)]
    own = dict(zip(names, ds.edges.values(), strict=True))
    write_pair_files(ds, folder)
    for old, new in zip(ds.behaviors, names, strict=True):
        (folder / f"{old}.txt").rename(folder / f"{new}.tmp")
    for new in names:
        (folder / f"{new}.tmp").rename(folder / f"{new}.txt")
    everything = lists(*own.values())
    parts = {**{name: lists(pairs) for name, pairs in own.items()}, "all": everything, "train": lists(own["buy"])}
    parts |= {"validation": lists(ds.valid), "test": lists(ds.test)}
    for name, items in parts.items():
        rows = {str(user + 1): [item + 1 for item in some] for user, some in items.items()}
        (folder / f"{name}_dict.txt").write_text(json.dumps(rows), encoding="utf-8")
    pairs = [(user + 1, item + 1) for user, items in everything.items() for item in items]
    np.savetxt(folder / "all.txt", pairs, fmt="%d")
    edges = [(u + 1, i + 1, b, 1) for b, name in enumerate(names) for u, some in lists(own[name]).items() for i in some]
    np.savetxt(folder / "pos_sampling.txt", edges, fmt="%d")


def write_lists(items: Mapping[int, list[int]], path: Path) -> None:
    """Write ``user item item ..`` a line, ids from 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(" ".join(map(str, (user, *some))) + "\n" for user, some in items.items())
    path.write_text(text, encoding="utf-8")


def write_weighted(pairs: Pairs, path: Path) -> None:
    """Write ``user item 1`` a line."""
    rows = np.stack([pairs.user, pairs.item, np.ones_like(pairs.user)], 1)
    np.savetxt(path, rows, fmt="%d")


def _write_parts(ds: MultiBehaviorDataset, folder: Path, names: tuple[str, ...]) -> None:
    for name, pairs in zip(names, ds.edges.values(), strict=True):
        write_lists(lists(pairs), folder / f"{name}.txt")
    write_lists(lists(ds.test), folder / "test.txt")


# --- programs -------------------------------------------------------------------------------------------------------


def _flags(**values: Any) -> list[str]:
    return [word for key, value in values.items() for word in (f"--{key}", str(value).replace(" ", ""))]


def _yan(root: str, three: str = "taobao", **values: Any) -> Any:
    """Return a writer for programs that know a data set by its name and its folder under ``root``."""

    def write(ds: MultiBehaviorDataset, folder: Path) -> list[str]:
        name, place = (three, three) if len(ds.behaviors) == 3 else ("tmall", "Tmall")
        write_dictionaries(ds, folder / root / place)
        return _flags(data_name=name, device="cpu", **values)

    return write


def _lightgcn(ds: MultiBehaviorDataset, folder: Path) -> list[str]:
    place = folder.parent / "data" / "gowalla"
    write_lists(lists(ds.edges[ds.target]), place / "train.txt")
    few = dict(list(lists(ds.test).items())[:150])  # it evaluates before the first epoch
    write_lists(few, place / "test.txt")
    return _flags(dataset="gowalla", tensorboard=0)


def _simgcl(ds: MultiBehaviorDataset, folder: Path) -> list[str]:
    for part, pairs in (("train", ds.edges[ds.target]), ("test", ds.test)):
        write_weighted(pairs, folder / f"{part}.txt")
    settings: dict[str, Any] = {
        "training.set": "./train.txt",
        "test.set": "./test.txt",
        "model": {"name": "SimGCL", "type": "graph"},
        "item.ranking.topN": [10, 20],
        "embedding.size": 64,
        "max.epoch": 20,
        "batch.size": 2048,
        "learning.rate": 0.001,
        "reg.lambda": 0.0001,
        "SimGCL": {"n_layer": 2, "lambda": 0.5, "eps": 0.1},
        "output": "./results/",
    }
    (folder / "conf").mkdir(exist_ok=True)
    (folder / "conf" / "SimGCL.yaml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    return []


def _mbssl(ds: MultiBehaviorDataset, folder: Path) -> list[str]:
    count = len(ds.behaviors)
    name, names = ("Taobao", ("pv", "cart", "train")) if count == 3 else ("Tmall", ("pv", "fav", "cart", "train"))
    _write_parts(ds, folder / "dataset" / name, names)
    target, place = Relations.of(ds.graph)[ds.target], folder / "Sim_Mats" / name
    place.mkdir(parents=True)
    for side in ("user", "item"):
        sparse.save_npz(place / f"{side}_unified_sim_mat_swing_.npz", swing(target, side).astype(np.float32))
    coefficients = [1 / 6 / (count - 2)] * (count - 2) + [4 / 6, 1 / 6]
    return _flags(
        dataset=name,
        batch_size=512,
        wid=[0.01] * count,
        decay=0.01,
        coefficient=[round(value, 4) for value in coefficients],
        ssl_temp=0.2,
        topk1_user=100,
        topk1_item=10,
        aux_beh_idx=list(range(count - 1)),
        ssl_reg_inter=[1] * (count - 1),
    )


def _smbrec(ds: MultiBehaviorDataset, folder: Path) -> list[str]:
    place = folder / "data" / "Beibei"
    _write_parts(ds, place, ("pv", "cart", "train"))
    counts = np.stack([np.bincount(pairs.user, minlength=ds.num_users) for pairs in ds.edges.values()], 1)[:, ::-1]
    shares = np.round(counts / counts.sum(1, keepdims=True).clip(1), 2).astype(np.float32)  # (U, 3), the target first
    (place / "type_num.txt").write_bytes(pickle.dumps(shares))
    return _flags(batch_size=SMBREC_BATCH)


def _missl(ds: MultiBehaviorDataset, folder: Path) -> list[str]:
    made = Sequences(Relations.of(ds.graph))
    sizes = {"num_items": ds.num_items, "num_behaviors": len(ds.behaviors)}
    np.savez(folder / "sequences.npz", pointers=made.pointers, items=made.items, types=made.types, **sizes)
    return ["sequences.npz"]


_NO_CUDA = {"cpu": ".cuda() does nothing"}
_SCIPY = {"scipy": "matrices are not filled by dok_matrix._update, which SciPy no longer has"}
_BIPN = {"lr": 0.0001, "reg_weight": 0.0001, "log_reg": 0.5, "decay": 0}
_UIPL = {"kl_reg": 0.01, "ort_reg": 0.0001, "log_reg": 0.01, "nce_reg": 0.01, "nce_temperature": 0.1, "neg_count": 4}

REFERENCES = {
    one.model: one
    for one in (
        Reference(
            "lightgcn",
            "gusye1234/LightGCN-PyTorch",
            "947ca2b",
            "code/main.py",
            _lightgcn,
            {"cppimport": "samples in Python: the C++ sampler is not built"},
            options={},
            sampler="utils.UniformSample_original",
        ),
        Reference(
            "simgcl",
            "Coder-Yu/SELFRec",
            "5b02294",
            "main.py",
            _simgcl,
            {**_NO_CUDA, "yaml": "its YAML is read as JSON"},
            options={},
            answers="SimGCL",
        ),
        Reference(
            "crgcn",
            "MingshiYan/CRGCN",
            "86fbe26",
            "main.py",
            _yan("data", three="beibei", lr=0.001),
            {"scatter": "torch_scatter is Tensor.scatter_add_, torch_sparse a name"},
        ),
        Reference("rmbrec", "miaomiao-cai2/RMBRec", "5e7827c", "main.py", _yan("data")),
        Reference("bcipm", "MingshiYan/BIPN", "31f3a7c", "main.py", _yan("data", **_BIPN), _SCIPY),
        Reference(
            "uipl", "MingshiYan/UIPL", "e7fbd03", "main.py", _yan("../data", model_name="model", **_UIPL), _SCIPY
        ),
        Reference(
            "smbrec",
            "GuShuyun/MBRec",
            "bf4519a",
            "main.py",
            _smbrec,
            training={"batch_size": SMBREC_BATCH},
            behaviors=(3,),
        ),
        Reference(
            "mbssl",
            "Scofield666/MBSSL",
            "34b7011",
            "MBSSL.py",
            _mbssl,
            {**_NO_CUDA, "anomaly": "autograd's anomaly detection, on in the program, is off"},
        ),
        Reference(
            "missl",
            "qianlima-lab/MISSL",
            "69865a8",
            "missl",
            _missl,
            {"lightning": "a plain loop around training_step instead of Lightning 1.5"},
        ),
    )
}
