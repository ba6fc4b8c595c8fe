"""The folder of a run: what is written into it, and what can be loaded again."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch

from mbgraph import __version__, manifest, processes
from mbgraph._dgl import graph_carrier
from mbgraph.config import FitConfig, read_config
from mbgraph.data.catalog import find_dataset
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import RunError
from mbgraph.files import LOCK_FILES, check_folder, read_json, safe_name, sweep
from mbgraph.locks import claimed
from mbgraph.machine import cpu_name, package_versions
from mbgraph.models.base import Recommender
from mbgraph.run.preparation import make_model, prepare_dataset
from mbgraph.schema import read_toml
from mbgraph.training.checkpoint import WEIGHTS, check_weights, load_weights
from mbgraph.training.devices import resolve_device

__all__ = [
    "PER_USER",
    "Run",
    "make_directory",
    "write_config",
    "write_extension",
    "write_facts",
    "write_outcome",
    "write_source",
    "writing",
]

FORMAT = 2
PER_USER = {"test": "per_user.npz", "valid": "per_user_valid.npz"}
_PACKAGES = ("torch", "dgl", "numpy", "numba", "pandas", "scipy", "pydantic", "safetensors")


@dataclass(frozen=True)
class Run:
    """A run directory.

    Attributes
    ----------
    path : Path
        The directory.
    config : FitConfig
        The resolved configuration.
    """

    path: Path
    config: FitConfig

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Open a run directory.

        Raises
        ------
        RunError
            If it is missing, incomplete or written by a version with another format.
        """
        path = Path(path)
        manifest.check_complete(path, ["config.toml", "dataset.json"])
        values = read_toml(path / "config.toml")
        if values.get("format") != FORMAT:
            version, format = values.get("mbgraph", "?"), values.get("format")
            raise RunError(
                f"{path} was written by mbgraph {version} in format {format}, not {FORMAT}",
                "use that version, or fit the model again",
            )
        return cls(path, read_config(path / "config.toml"))

    def outcome(self) -> dict[str, Any]:
        """Return what the run came to, as `fit` does.

        Raises
        ------
        RunError
            If it is not finished, or its ``test.json`` is not what was written.
        """
        if not (self.path / "test.json").is_file():
            raise RunError(
                f"{self.path} is no finished run: test.json is missing",
                f"continue it: mbgraph fit --resume {self.path}",
            )
        return _read(self.path, "test.json")

    def environment(self) -> dict[str, Any]:
        """Return machine, versions and commands: what stands in ``env.json``; `RunError` if that was changed."""
        return _read(self.path, "env.json")

    def facts(self) -> dict[str, Any]:
        """Return what is written of the run's data, ``dataset.json``; `RunError` if that was changed."""
        return _read(self.path, "dataset.json")

    def dataset(self) -> MultiBehaviorDataset:
        """Load the run's data as it was prepared then; other content raises `RunError`."""
        manifest.check(self.path, ["config.toml", "dataset.json"])
        recorded = read_json(self.path / "dataset.json")
        if not isinstance(recorded, dict) or not isinstance(recorded.get("source"), str):
            raise RunError(f"{self.path / 'dataset.json'} does not say which data it was made with", "fit again")
        dataset = prepare_dataset(self.config.replace(dataset=recorded["source"]))
        for hash, what in (("content_hash", "data"), ("ids_hash", "ids of users and items")):
            if getattr(dataset, hash)() != recorded.get(hash):
                raise RunError(
                    f"{self.path} was made with other {what} than {recorded['source']!r} holds now",
                    "restore that data, or fit the model again",
                )
        return dataset

    def model(self, dataset: MultiBehaviorDataset | None = None) -> Recommender:
        """Build the model on the run's data and load the best epoch's weights."""
        dataset = self.dataset() if dataset is None else dataset
        model = make_model(self.config, dataset)
        if model.has_weights():
            weights = load_weights(self.path / WEIGHTS)
            check_weights(model, weights, f"{self.path / WEIGHTS}")
            model.load_state_dict(weights)
        return model.eval()


def make_directory(
    config: FitConfig, dataset: MultiBehaviorDataset, directory: str | os.PathLike[str] | None = None
) -> Path:
    """Make the folder of a new run, by default ``runs/<dataset>-<model>[-<variant>]-s<seed>``, numbered when taken.

    Raises
    ------
    UsageError
        If the folder named holds something.
    RunError
        If it cannot be made.
    """
    if directory is not None:
        path = Path(directory)
        check_folder(path, remedy=f"continue it with --resume {path}, or choose another --out")
        return _made(path, exist_ok=True)
    parts = [safe_name(dataset.name), config.model, *([config.variant] if config.variant else []), f"s{config.seed}"]
    stem = Path("runs") / "-".join(parts)
    path, number = stem, 2
    while True:
        try:
            return _made(path, exist_ok=False)
        except FileExistsError:
            path, number = stem.with_name(f"{stem.name}-{number}"), number + 1


def _made(path: Path, exist_ok: bool) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as error:
        raise RunError(f"cannot make {path}: {error.strerror or error}", "choose another --out") from error
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Be the only one who writes into a run directory while the block runs; what a killed one left is removed.

    Of several processes that train together the first one writes, for all of them.

    Raises
    ------
    RunError
        If somebody else is at it; names process and host.
    """
    with contextlib.ExitStack() as held:

        def claim() -> None:
            held.enter_context(claimed(path / LOCK_FILES[0], path))
            sweep(path)

        processes.first(claim)
        yield


def write_config(path: Path, config: FitConfig) -> None:
    """Write a resolved configuration as ``config.toml``, atomically."""
    with manifest.recorded(path, ["config.toml"]) as files:
        tomli_w.dump({"format": FORMAT, "mbgraph": __version__, **config.plain()}, files[0])


def write_facts(path: Path, config: FitConfig, dataset: MultiBehaviorDataset, chosen: Sequence[str] = ()) -> None:
    """Write what the run stands on: ``dataset.json``, and ``env.json`` with a line for each number ``auto`` chose."""
    _write(
        path,
        "dataset.json",
        {
            "name": dataset.name,
            "source": config.dataset if config.dataset == "demo" else str(find_dataset(config.dataset)),
            "content_hash": dataset.content_hash(),
            "ids_hash": dataset.ids_hash(),
            "users": dataset.num_users,
            "items": dataset.num_items,
            "counts": dataset.counts,
            "protocol": config.protocol,
            "validation": dataset.metadata["validation"],
        },
    )
    device = resolve_device(config.device)
    _write(
        path,
        "env.json",
        {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpu": cpu_name(),
            "device": device.type,
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            "threads": torch.get_num_threads(),
            "processes": processes.count(),
            "graph": graph_carrier().name,
            "versions": {"mbgraph": __version__, **package_versions(_PACKAGES)},
            "command": _command(),
            **({"chosen": list(chosen)} if chosen else {}),
        },
    )


def write_outcome(path: Path, outcome: dict[str, Any]) -> None:
    """Write what a run came to as ``test.json``: from then on it is finished."""
    _write(path, "test.json", outcome)


def _read(path: Path, name: str) -> dict[str, Any]:
    manifest.check(path, [name])
    return dict(read_json(path / name))


def _write(path: Path, name: str, facts: dict[str, Any]) -> None:
    with manifest.recorded(path, [name]) as files:
        files[0].write(f"{json.dumps(facts, indent=1)}\n".encode())


def write_source(path: Path, source: str) -> None:
    """Write down where the data of a run lie now, if they were moved."""
    _write(path, "dataset.json", {**_read(path, "dataset.json"), "source": source})


def write_extension(path: Path, config: FitConfig) -> None:
    """Write a configuration with other limits over the run's, and the command that asked for it into ``env.json``."""
    environment = _read(path, "env.json")
    _write(path, "env.json", {**environment, "extended": [*environment.get("extended", []), _command()]})
    write_config(path, config)


def _command() -> list[str]:
    return [Path(sys.argv[0]).name, *sys.argv[1:]]
