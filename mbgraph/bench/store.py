"""Where runs are kept: filed by what they are, so that no suite on any machine computes one twice.

::

    store.json           format and version
    runs/<address>/      run directories, see `mbgraph.run`
    jobs/<address>.json  what the run is: dataset, recipe, configuration, the hashes behind its address
    failed/<address>.json the error of a run that ended with one
    cut/<address>.json   after how many seconds and epochs a training was cut off
    data/<name>-<key>/   data that a recipe made, in the npz layout
    prepared/<key>.json  content hash and size of what a recipe, a protocol and a choice of validation make of a source
    locks/               who is at what
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mbgraph import __version__
from mbgraph.bench.identity import code_hash, data_code_hash, digest, run_address
from mbgraph.bench.jobs import Job
from mbgraph.bench.sources import STAND_INS, Recipe, facts_of, made
from mbgraph.data.formats.npz import is_npz, write_npz
from mbgraph.errors import DataError, RunError
from mbgraph.files import read_json, write_json
from mbgraph.locks import hold
from mbgraph.run.preparation import prepare_dataset

__all__ = ["Store", "default_store"]

FORMAT = 1


def default_store() -> Path:
    """Return ``$MBGRAPH_STORE``, or ``runs/bench`` here."""
    return Path(os.environ.get("MBGRAPH_STORE") or Path("runs") / "bench").expanduser()


@dataclass(frozen=True)
class Store:
    """A folder of runs.

    Parameters
    ----------
    path : Path
        Made when something is first written.

    Raises
    ------
    RunError
        If another version wrote it in another format, or the folder is something else.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        marker = self.path / "store.json"
        if not marker.is_file():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise RunError(f"{self.path} holds other things than runs of studies", "choose another --store")
            return
        found = read_json(marker)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            version, format = (found.get(key, "?") if isinstance(found, dict) else "?" for key in ("mbgraph", "format"))
            raise RunError(
                f"{self.path} was written by mbgraph {version} in format {format}, not {FORMAT}",
                "use that version, or another --store",
            )

    def open(self) -> None:
        """Make the folder where there is none."""
        if not (self.path / "store.json").is_file():
            write_json(self.path / "store.json", {"format": FORMAT, "mbgraph": __version__})

    def run(self, address: str) -> Path:
        """Return the directory of a run."""
        return self.path / "runs" / address

    def lock(self, name: str) -> AbstractContextManager[bool]:
        """Return a lock of this store, see `mbgraph.locks.hold`."""
        return hold(self.path / "locks" / f"{name}.lock")

    def address(self, job: Job, *, make: bool = True) -> str | None:
        """Return what a job is filed under.

        Parameters
        ----------
        job : Job
        make : bool
            Whether data that nobody has made yet are made; otherwise such a job has no address yet, None.
        """
        prepared = self._prepared(job, make)
        return None if prepared is None else run_address(job.config, prepared["content_hash"], prepared["items"])

    def dataset(self, recipe: Recipe) -> str:
        """Return the name or path of a recipe's data, made now if nobody has."""
        if recipe.is_plain and recipe.source not in STAND_INS:
            return recipe.source
        key = digest([facts_of(recipe.source).content_hash, recipe.to_dict(), data_code_hash()])[:20]
        stem = recipe.source.replace("/", "-").replace("\\", "-").strip(".-")
        path = self.path / "data" / f"{stem}-{key}"
        while not is_npz(path):
            self.open()
            with self.lock(f"data-{key}") as mine:
                if mine and not is_npz(path):
                    write_npz(made(recipe), path)
            if not mine:
                time.sleep(0.2)
        return str(path)

    def data_key(self, job: Job) -> str:
        """Return what a job's prepared data are filed under: source, recipe, protocol and choice of validation."""
        config = job.config
        return digest(
            [
                facts_of(job.recipe.source).content_hash,
                job.recipe.to_dict(),
                config.protocol,
                config.validation,
                config.model_class.trainable,
                data_code_hash(),
            ]
        )

    def _prepared(self, job: Job, make: bool) -> dict[str, Any] | None:
        key, config = self.data_key(job), job.config
        if key not in self._known:
            file = self.path / "prepared" / f"{key}.json"
            if not file.is_file():
                if not make:
                    return None
                ready = prepare_dataset(config.replace(dataset=self.dataset(job.recipe)))
                self.open()
                write_json(file, {"content_hash": ready.content_hash(), "items": ready.num_items, "name": ready.name})
            self._known[key] = read_json(file)
        return self._known[key]

    @cached_property
    def _known(self) -> dict[str, dict[str, Any]]:
        return {}

    def describe(self, address: str, job: Job) -> None:
        """Write down what a run is."""
        write_json(
            self.path / "jobs" / f"{address}.json",
            {
                "dataset": job.cell.dataset,
                "recipe": {**job.recipe.to_dict(), "source": job.recipe.source},
                "model": job.config.model,
                "variant": getattr(job.config.model_options, "variant", None),
                "seed": job.seed,
                "config": job.config.plain(),
                "code": code_hash(job.config.model_class),
                "mbgraph": __version__,
            },
        )

    def status(self, address: str | None) -> str:
        """Return ``done``, ``failed``, ``partial`` or ``missing``."""
        if address is None:
            return "missing"
        if (self.run(address) / "test.json").is_file():
            return "done"
        if (self.path / "failed" / f"{address}.json").is_file():
            return "failed"
        return "partial" if (self.run(address) / "config.toml").is_file() else "missing"

    def outcome(self, address: str) -> dict[str, Any]:
        """Return what a finished run came to."""
        found = read_json(self.run(address) / "test.json")
        if not isinstance(found, dict):
            raise DataError(f"{self.run(address) / 'test.json'} is no outcome of a run", "delete the folder")
        return found

    def refused(self, job: Job) -> str:
        """Return what a job without an address fails under: its data could not be made."""
        return f"data-{self.data_key(job)}"

    def error(self, address: str) -> str:
        """Return why a run failed."""
        return str(read_json(self.path / "failed" / f"{address}.json").get("error", "unknown"))

    def fail(self, address: str, job: Job, error: str, details: str = "") -> None:
        """Mark a run as failed."""
        self.describe(address, job)
        write_json(self.path / "failed" / f"{address}.json", {"error": error, "job": str(job), "details": details})

    def clear(self, address: str) -> None:
        """Forget that a run failed."""
        (self.path / "failed" / f"{address}.json").unlink(missing_ok=True)

    def cut_off(self, address: str, seconds: float, epochs: int) -> None:
        """Write down that a training is cut off after some seconds, at an epoch."""
        write_json(self.path / "cut" / f"{address}.json", {"seconds": seconds, "epochs": epochs})

    def cut(self, address: str) -> float | None:
        """Return the seconds after which the training of a finished run was cut off, None where it ended by itself."""
        file = self.path / "cut" / f"{address}.json"
        if not file.is_file():
            return None
        found = read_json(file)
        # a run that has gone on since has more epochs
        return float(found["seconds"]) if found["epochs"] == self.outcome(address)["epochs"] else None

    def epochs(self, address: str) -> int:
        """Return the number of epochs that a run has written down so far."""
        try:
            with (self.run(address) / "metrics.jsonl").open("rb") as file:
                return sum(1 for _ in file)
        except OSError:
            return 0

    def finished(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield what every finished run is and what it came to."""
        for file in sorted((self.path / "jobs").glob("*.json")):
            if (self.run(file.stem) / "test.json").is_file():
                yield read_json(file), self.outcome(file.stem)

    @property
    def is_full(self) -> bool:
        """Whether the disk has no room left."""
        try:
            return shutil.disk_usage(self.path).free < 2**20
        except OSError:
            return False
