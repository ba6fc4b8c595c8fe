"""Embeddings out of a model, with original ids, in one file that can be scored with numpy alone.

Importing this module, loading an npz export and recommending from it need neither torch nor DGL.

An npz export holds, for U users, I items and each behavior B that the model embeds:

- ``user_ids`` (U,), ``item_ids`` (I,): original ids by row, int64 or fixed-width unicode
- ``user`` (U, D), ``item`` (I, D): fused embeddings, float32; the scores are ``user @ item.T``
- ``user__B`` (U, D), ``item__B`` (I, D): embeddings of behavior B
- ``seen_target_indptr`` (U + 1,), ``seen_target_indices`` (N,): train items of the target behavior; user row
  ``u`` has the item rows ``indices[indptr[u]:indptr[u + 1]]``
- ``seen_all_indptr``, ``seen_all_indices``: the same for train items of any behavior
- ``meta``: JSON text with format, version, dataset, dataset_hash, model, target, behaviors, dot_scores

A Parquet export is one table with a row per user, then a row per item: ``kind`` ("user" or "item"), ``id``
(text), ``embedding``, ``embedding__B``, and for users ``seen_target`` and ``seen_all`` (item rows). The
metadata of its schema has the same ``meta`` under ``mbgraph``, with the type of the ids.

Neither layout has padding rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from mbgraph.data.interactions import CSR, Vocabulary
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.files import atomic_write, open_file, reading
from mbgraph.recommend import EXCLUDE, check_k, seen_items
from mbgraph.typing import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

    from mbgraph.data.dataset import MultiBehaviorDataset
    from mbgraph.models.base import Recommender

__all__ = ["FORMATS", "ExportedModel", "export_embeddings", "export_format", "load_export"]

FORMATS = ("npz", "parquet")
_FORMAT, _VERSION = "mbgraph-export", 1
_SEEN = ("target", "all")
_CHECKED_USERS = 64
_AGAIN = "write it again with mbgraph export"


def export_embeddings(
    model: Recommender, ds: MultiBehaviorDataset, path: str | os.PathLike[str], format: str | None = None
) -> ExportedModel:
    """Write a model's fused and per-behavior embeddings, original ids, and the items each user has seen.

    Parameters
    ----------
    model : Recommender
        A model with embeddings.
    ds : MultiBehaviorDataset
        The dataset the model was trained on.
    path : path
        The file to write, replaced as a whole or not at all.
    format : str, optional
        ``"npz"`` or ``"parquet"``; left out, the suffix of ``path`` decides.

    Returns
    -------
    ExportedModel
        What was written.

    Raises
    ------
    UsageError
        If the model has no embeddings, or the format is neither given nor plain from the suffix.
    DataError
        If the model was built on other train edges than the dataset's, or an id ends in a NUL character.
    """
    path = Path(path)
    format = export_format(path, format)
    exported = _from_model(model, ds)
    with atomic_write(path) as file:
        if format == "npz":
            _write_npz(exported, file)
        else:
            _write_parquet(exported, file)
    return exported


def export_format(path: Path, format: str | None = None) -> str:
    """Return the format named, else that of the suffix; raises `UsageError` if it is none of `FORMATS`."""
    if format is not None and format not in FORMATS:
        raise UnknownNameError("export format", format, FORMATS)
    format = format or path.suffix[1:].lower()
    if format not in FORMATS:
        raise UsageError(f"{path.name!r} names no export format", f"end it in .{' or .'.join(FORMATS)}")
    return format


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """Embeddings with ids, as written by `export_embeddings`; scores and recommends with numpy.

    Attributes
    ----------
    users, items : Vocabulary
        Original ids by row.
    user, item : float32 array (U, D), (I, D)
        Fused embeddings.
    behaviors : mapping of str to (float32 array (U, D), float32 array (I, D))
        Embeddings per behavior.
    seen : mapping of str to CSR
        Train items of each user under ``"target"`` (of the target behavior) and ``"all"`` (of any).
    meta : mapping
        Where the embeddings come from: ``dataset``, ``dataset_hash``, ``model``, ``target``, ``behaviors``;
        ``dot_scores`` is false where the model's scores are not the products of its fused embeddings.

    Examples
    --------
    >>> from mbgraph.export import ExportedModel
    >>> exported = ExportedModel.load("embeddings.npz")  # doctest: +SKIP
    >>> items, scores = exported.recommend("u0001", k=5)  # doctest: +SKIP
    """

    users: Vocabulary
    items: Vocabulary
    user: FloatArray
    item: FloatArray
    behaviors: Mapping[str, tuple[FloatArray, FloatArray]]
    seen: Mapping[str, CSR]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ExportedModel:
        """Read an export, npz or Parquet by its content (Parquet needs pyarrow).

        Raises
        ------
        DataError
            If the file is missing, broken, of another kind, or its arrays do not fit each other.
        """
        with reading(path, _AGAIN, _problem(path)):
            with open_file(path) as file:
                read = {b"PK": _read_npz, b"PA": _read_parquet}.get(file.read(2))
            if read is None:
                raise ValueError("neither npz nor Parquet")
            return cls._from_arrays(read(path))

    def score(self, user_id: Any, item_ids: Any = None) -> FloatArray:
        """Return the user's scores of the items named, or of all items by row.

        Raises
        ------
        DataError
            For an unknown user or item.
        UsageError
            If the model's scores are not products of embeddings.
        """
        if not self.meta.get("dot_scores", True):
            raise UsageError(
                f"scores of model {self.meta.get('model')!r} are not products of its embeddings",
                "use mbgraph.recommend with the model itself",
            )
        items = self.item if item_ids is None else self.item[self.items.index_of(item_ids)]
        return items @ self.user[self._row(user_id)]

    def recommend(self, user_id: Any, k: int = 10, exclude: str = "target") -> tuple[np.ndarray, FloatArray]:
        """Return original ids and scores of the user's ``k`` best items, as `mbgraph.recommend` gives them.

        Fewer where the user has fewer candidates; equal scores in the order of the item rows. Scores agree
        with the model's to float32 rounding.

        Raises
        ------
        DataError
            For an unknown user.
        UsageError
            If ``k`` is not between 1 and the number of items, ``exclude`` is not ``"target"``, ``"all"`` or
            ``"none"``, or the model's scores are not products of embeddings.
        """
        k = check_k(k, len(self.items))
        if exclude not in EXCLUDE:
            raise UnknownNameError("exclude", exclude, EXCLUDE)
        scores = self.score(user_id)
        if exclude != "none":
            scores[self.seen[exclude].row(self._row(user_id))] = -np.inf
        best = np.argsort(-scores, kind="stable")[:k]
        best = best[scores[best] > -np.inf]
        return self.items[best], scores[best]

    def _row(self, user_id: Any) -> int:
        return int(self.users.index_of([user_id])[0])

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ExportedModel:
        meta = json.loads(str(arrays["meta"]))
        if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
            raise ValueError("its meta names another format")
        if meta.get("version") != _VERSION:
            raise ValueError(f"version {meta.get('version')} of the format, this mbgraph reads {_VERSION}")
        exported = cls(
            users=Vocabulary(arrays["user_ids"], kind="user"),
            items=Vocabulary(arrays["item_ids"], kind="item"),
            user=arrays["user"],
            item=arrays["item"],
            behaviors={name: (arrays[f"user__{name}"], arrays[f"item__{name}"]) for name in meta["behaviors"]},
            seen={
                name: CSR(*(arrays[f"seen_{name}_{part}"].astype(np.int64) for part in ("indptr", "indices")))
                for name in _SEEN
            },
            meta=meta,
        )
        exported._check()
        return exported

    def _embeddings(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        """Return the fused embeddings under "", those of behavior B under "__B"."""
        return {"": (self.user, self.item), **{f"__{name}": pair for name, pair in self.behaviors.items()}}

    def _check(self) -> None:
        """Raise ValueError if the arrays do not fit each other."""
        num_users, num_items = len(self.users), len(self.items)
        for suffix, (user, item) in self._embeddings().items():
            for name, array, count in (
                (f"user{suffix}", user, num_users),
                (f"item{suffix}", item, num_items),
            ):
                if array.ndim != 2 or len(array) != count or array.dtype.kind != "f":
                    raise ValueError(f"{name} has shape {array.shape} and type {array.dtype} for {count} ids")
            if user.shape[1] != item.shape[1]:
                raise ValueError(f"user{suffix} and item{suffix} differ in their dimension")
        for name, csr in self.seen.items():
            fits = len(csr.indptr) == num_users + 1 and csr.indptr[0] == 0 and csr.indptr[-1] == len(csr.indices)
            if not fits or (csr.degrees() < 0).any():
                raise ValueError(f"seen_{name} does not fit the ids")
            if len(csr.indices) and not 0 <= csr.indices.min() <= csr.indices.max() < num_items:
                raise ValueError(f"seen_{name} has items beyond the {num_items} ids")


load_export = ExportedModel.load


def _from_model(model: Recommender, ds: MultiBehaviorDataset) -> ExportedModel:
    import torch

    model.check_dataset(ds)
    with torch.no_grad():
        encoded = model.encode()
        tensors = {"": (encoded.users, encoded.items), **encoded.behaviors}
        arrays = {name: (_float32(users), _float32(items)) for name, (users, items) in tensors.items()}
        user, item = arrays.pop("")
        some = np.unique(np.linspace(0, len(user) - 1, _CHECKED_USERS).astype(np.int64))
        scores = model.scorer().scores(torch.from_numpy(some)).numpy(force=True)
    largest = float(np.abs(scores, where=np.isfinite(scores), out=np.zeros_like(scores)).max())  # barred pairs: -inf
    order = list(dict.fromkeys(name for name in (*ds.behaviors, *arrays) if name in arrays))
    return ExportedModel(
        users=ds.users,
        items=ds.items,
        user=user,
        item=item,
        behaviors={name: arrays[name] for name in order},
        seen={name: seen_items(ds, name) for name in _SEEN},
        meta={
            "format": _FORMAT,
            "version": _VERSION,
            "dataset": ds.name,
            "dataset_hash": ds.content_hash(),
            "model": model.name,
            "target": ds.target,
            "behaviors": order,
            "dot_scores": bool(np.allclose(user[some] @ item.T, scores, rtol=1e-3, atol=1e-4 * largest)),
        },
    )


def _float32(embeddings: Tensor) -> FloatArray:
    return embeddings.float().numpy(force=True)


def _flat(vocabulary: Vocabulary) -> np.ndarray:
    """Return ids as int64 or fixed-width unicode, never objects."""
    ids = vocabulary.ids
    if ids.dtype.kind == "i":
        return ids
    flat = ids.astype(np.str_)
    cut = np.flatnonzero(flat.astype(object) != ids)
    if len(cut):  # numpy strips trailing NULs from fixed-width text
        raise DataError(
            f"{vocabulary.kind} id {ids[cut[0]]!r} ends in a NUL character", "rename it or export to Parquet"
        )
    return flat


def _write_npz(exported: ExportedModel, file: IO[bytes]) -> None:
    arrays: dict[str, Any] = {"user_ids": _flat(exported.users), "item_ids": _flat(exported.items)}
    for suffix, (user, item) in exported._embeddings().items():
        arrays |= {f"user{suffix}": user, f"item{suffix}": item}
    for name, csr in exported.seen.items():
        arrays |= {f"seen_{name}_indptr": csr.indptr, f"seen_{name}_indices": csr.indices.astype(np.int32)}
    np.savez(file, **arrays, meta=np.array(json.dumps(dict(exported.meta))))


def _problem(path: str | os.PathLike[str]) -> str:
    return f"{path} is not a usable mbgraph export"


def _read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    from mbgraph.data.formats.archive import opened_npz

    with opened_npz(Path(path), _AGAIN, _problem(path)) as archive:
        return dict(archive)


def _write_parquet(exported: ExportedModel, file: IO[bytes]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    vocabularies = {"user": exported.users, "item": exported.items}
    num_users, num_items = len(exported.users), len(exported.items)
    columns: dict[str, pa.Array] = {
        "kind": pa.array(np.repeat(list(vocabularies), [num_users, num_items])),
        "id": pa.array([str(name) for ids in vocabularies.values() for name in ids.ids.tolist()], pa.string()),
    }
    for suffix, pair in exported._embeddings().items():
        rows = np.concatenate(pair)
        columns[f"embedding{suffix}"] = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    for name, csr in exported.seen.items():
        lists = pa.LargeListArray.from_arrays(pa.array(csr.indptr), pa.array(csr.indices.astype(np.int32)))
        columns[f"seen_{name}"] = pa.concat_arrays([lists, pa.nulls(num_items, lists.type)])
    types = {kind: "int64" if ids.ids.dtype.kind == "i" else "text" for kind, ids in vocabularies.items()}
    meta = json.dumps({**exported.meta, "id_types": types})
    parquet.write_table(pa.table(columns).replace_schema_metadata({"mbgraph": meta}), file)


def _read_parquet(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    from pyarrow import parquet

    table = parquet.read_table(os.fspath(path))
    meta = json.loads((table.schema.metadata or {})[b"mbgraph"])
    types = meta.pop("id_types")
    is_user = table["kind"].to_numpy() == "user"
    num_users = int(is_user.sum())
    if not is_user[:num_users].all():
        raise ValueError("its rows are not users, then items")
    arrays: dict[str, np.ndarray] = {"meta": np.array(json.dumps(meta))}
    for kind, part in (("user", table.slice(0, num_users)), ("item", table.slice(num_users))):
        ids = np.array(part["id"].to_pylist(), object)  # objects: fixed-width text would lose trailing NULs
        arrays[f"{kind}_ids"] = ids.astype(np.int64) if types[kind] == "int64" else ids
        for suffix in ("", *(f"__{behavior}" for behavior in meta["behaviors"])):
            rows = part[f"embedding{suffix}"].combine_chunks()
            arrays[f"{kind}{suffix}"] = rows.flatten().to_numpy().reshape(len(rows), -1)
    for name in _SEEN:
        lists = table[f"seen_{name}"].slice(0, num_users).combine_chunks()
        ends = np.cumsum(lists.value_lengths().to_numpy())
        arrays[f"seen_{name}_indptr"] = np.concatenate([[0], ends])
        arrays[f"seen_{name}_indices"] = lists.flatten().to_numpy()
    return arrays
