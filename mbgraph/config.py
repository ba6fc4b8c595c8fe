"""The configuration of a run: from defaults, a TOML file and flags, resolved, checked and written down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mbgraph.data.protocols import check_protocol
from mbgraph.errors import DataError, UnknownNameError, UsageError

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

__all__ = [
    "TRAINING_OPTIONS",
    "VALIDATIONS",
    "FitConfig",
    "parse_assignment",
    "parse_regularizer",
    "read_config",
]

VALIDATIONS = ("auto", "given", "holdout", "none", "merge")
TRAINING_OPTIONS = (
    "epochs",
    "patience",
    "batch_size",
    "lr",
    "weight_decay",
    "sampler",
    "history",
    "diagnose_every",
)
EVALUATION_OPTIONS = ("metric", "k", "mask", "ties")
_TOP = ("dataset", "model", "variant", "seed", "protocol", "validation", "device", "threads")
_WRITTEN = ("format", "mbgraph")  # stand in a run's config.toml and are checked by the run, not set by a user


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides a run's numbers, and where it runs."""

    dataset: str = "demo"
    """Name in the catalog or path."""
    model: str = "rmbrec"
    """Registered model name."""
    variant: str | None = None
    """Named preset of the model; None for its default."""
    seed: int = 2026
    """Seed of initialisation and sampling."""
    protocol: str = "paper"
    """How the target pairs are split, see `mbgraph.data.protocols.apply_protocol`: ``paper`` as published or imported,
    ``loo``, ``random``, ``ratio:TRAIN,VALID,TEST`` or ``temporal:CUT``. Random orders have a seed of their own, 0, so
    that the seeds of a study share one split."""
    validation: str = "auto"
    """``given``: the dataset's own pairs; ``holdout``: one random train target pair per user; ``auto``: given if there
    are any, else holdout; ``none``: no validation, exactly ``epochs`` epochs; ``merge``: the same after moving the
    dataset's validation pairs into train."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the model."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Options of the trainer, see `TRAINING_OPTIONS`."""
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    """``metric`` to select on, cut-offs ``k``, ``mask`` and ``ties``."""
    regularizers: Sequence[Mapping[str, Any]] = ()
    """Changes to the model's regularizers: each entry has a ``name`` and options; ``weight = 0`` removes one."""

    def __post_init__(self) -> None:
        if self.validation not in VALIDATIONS:
            raise UnknownNameError("validation", self.validation, VALIDATIONS)
        check_protocol(self.protocol)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise UsageError(f"seed must be a non-negative integer, got {self.seed!r}")
        if not isinstance(self.threads, int) or self.threads < 0:
            raise UsageError(f"threads must be a non-negative integer, got {self.threads!r}")
        for kind, given, known in (
            ("training option", self.training, TRAINING_OPTIONS),
            ("evaluation option", self.evaluation, EVALUATION_OPTIONS),
        ):
            for key in given:
                if key not in known:
                    raise UnknownNameError(kind, key, known)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for TOML: None is left out."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        values["regularizers"] = [dict(entry) for entry in self.regularizers]
        for section in ("options", "training", "evaluation"):
            chosen = {key: value for key, value in values[section].items() if value is not None}
            values[section] = {key: list(v) if isinstance(v, tuple) else v for key, v in chosen.items()}
        return values

    def replace(self, **changes: Any) -> FitConfig:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitConfig:
        """Make a configuration from plain values; an unknown key raises `UnknownNameError` that names the nearest."""
        known = [entry.name for entry in fields(cls)]
        kept = {key: value for key, value in values.items() if key not in _WRITTEN}
        for key, value in kept.items():
            if key not in known:
                raise UnknownNameError("configuration key", key, known)
            section = key in ("options", "training", "evaluation")
            if section and not isinstance(value, Mapping):
                raise UsageError(f"configuration key {key!r} must be a table", f"write it as [{key}]")
        for entry in kept.get("regularizers", ()):
            if not isinstance(entry, Mapping) or "name" not in entry:
                raise UsageError("a regularizer entry has no name", 'write [[regularizers]] with name = "rex"')
        return cls(**kept)

    def set(self, key: str, value: Any, model_options: Sequence[str]) -> FitConfig:
        """Return a copy with one option set, found by its plain name among all sections.

        ``model_options`` are the options the chosen model reads.
        """
        section, _, name = key.rpartition(".")
        places = {
            **{option: "options" for option in model_options if option not in ("variant", "rng")},
            **dict.fromkeys(TRAINING_OPTIONS, "training"),
            **dict.fromkeys(EVALUATION_OPTIONS, "evaluation"),
            **dict.fromkeys(_TOP, ""),
        }
        if name not in places or (section and places[name] != section):
            raise UnknownNameError(f"configuration key of model {self.model!r}", key, places)
        if not places[name]:
            return self.replace(**{name: value})
        return self.replace(**{places[name]: {**getattr(self, places[name]), name: value}})


def read_config(path: str | os.PathLike[str]) -> FitConfig:
    """Read a TOML configuration, for example a run's ``config.toml``."""
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid TOML: {error}") from error
    return FitConfig.from_dict(values)


def parse_value(text: str) -> Any:
    """Read a value as TOML would (``3``, ``0.5``, ``true``, ``[1, 2]``), anything else as a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split ``key=value``."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"cannot read {text!r}", "write it as key=value")
    return key.strip(), parse_value(value.strip())


def parse_regularizer(text: str) -> dict[str, Any]:
    """Split ``name:key=value,key=value``."""
    name, _, rest = text.partition(":")
    options = dict(parse_assignment(part) for part in rest.split(",") if part.strip())
    return {"name": name.strip(), **options}
