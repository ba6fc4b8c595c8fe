"""A run: configuration in, trained model, metrics and everything needed to repeat or continue it in one folder."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import tomli_w
import torch

from mbgraph import __version__
from mbgraph.config import FitConfig, read_config
from mbgraph.data.catalog import find_dataset, load_dataset
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.protocols import apply_protocol
from mbgraph.data.splits import hold_out, merge_split
from mbgraph.errors import RunError, UsageError
from mbgraph.evaluation.evaluate import EvaluationResult, evaluate_splits
from mbgraph.evaluation.metrics import check_cutoffs
from mbgraph.evaluation.ranking import block_rows
from mbgraph.files import atomic_write, read_json, write_json
from mbgraph.models import MODELS
from mbgraph.models.base import Recommender, build_model
from mbgraph.regularizers.base import REGULARIZERS, Regularizer, build_regularizer, regularizer_options
from mbgraph.training.callbacks import Callback
from mbgraph.training.checkpoint import load_weights
from mbgraph.training.memory import available_memory, estimate_memory
from mbgraph.training.trainer import Trainer, resolve_device

__all__ = ["Run", "cpu_name", "fit", "peak_memory_mb", "plan", "prepare_dataset", "resume", "run_regularizers"]

FORMAT = 1
PER_USER = {"test": "per_user.npz", "valid": "per_user_valid.npz"}
DEFAULT_K = (10, 20)


@dataclass(frozen=True)
class Run:
    """A run directory.

    Attributes
    ----------
    path : Path
        The directory.
    config : dict
        The resolved configuration as plain values.
    """

    path: Path
    config: dict[str, Any]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Open a run directory.

        Raises
        ------
        RunError
            If it is missing, incomplete or written by a version with another format.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"no run directory at {path}", "make one with: mbgraph fit --out DIR")
        for name in ("config.toml", "dataset.json"):
            if not (path / name).is_file():
                raise RunError(f"{path} is not a complete run directory: {name} is missing", "fit the model again")
        raw = _raw_config(path)
        if raw.get("format") != FORMAT:
            raise RunError(
                f"{path} was written by mbgraph {raw.get('mbgraph', '?')} in format {raw.get('format')}, not {FORMAT}",
                "use that version, or fit the model again",
            )
        return cls(path, read_config(path / "config.toml").to_dict())

    @property
    def fit_config(self) -> FitConfig:
        """The configuration as an object."""
        return FitConfig.from_dict(self.config)

    def dataset(self) -> MultiBehaviorDataset:
        """Load the run's data as it was prepared then; other content raises `RunError`."""
        recorded = read_json(self.path / "dataset.json")
        dataset = prepare_dataset(self.fit_config.replace(dataset=recorded["source"]))
        if dataset.content_hash() != recorded["content_hash"]:
            raise RunError(
                f"{self.path} was made with other data than {recorded['source']!r} holds now",
                "restore that data, or fit the model again",
            )
        return dataset

    def model(self, dataset: MultiBehaviorDataset | None = None) -> Recommender:
        """Build the model on the run's data and load the best epoch's weights."""
        dataset = self.dataset() if dataset is None else dataset
        model = _build(self.fit_config, dataset)
        if model.trainable:
            weights = load_weights(self.path / "model.safetensors")
            try:
                model.load_state_dict(weights)
            except RuntimeError as error:
                raise RunError(f"{self.path} holds weights of another model", "fit the model again") from error
        return model.eval()


def prepare_dataset(config: FitConfig) -> MultiBehaviorDataset:
    """Load a dataset, split it by the protocol and arrange its validation part (``metadata["validation"]``)."""
    dataset = apply_protocol(load_dataset(config.dataset), config.protocol, rng=0)
    choice = config.validation
    if choice == "auto":
        # An untrained model selects nothing: it keeps every train pair.
        choice = "given" if len(dataset.valid) else "holdout" if MODELS.get(config.model).trainable else "none"
    if choice in ("given", "merge") and not len(dataset.valid):
        raise UsageError(f"{dataset.name!r} has no validation pairs", "use --validation holdout or none")
    if choice == "holdout":
        dataset = merge_split(dataset, "valid") if len(dataset.valid) else dataset
        dataset = hold_out(dataset, n=1, split="valid", rng=0)  # not the run's seed: seeds share one validation set
    elif choice == "merge":
        dataset = merge_split(dataset, "valid")
    elif choice == "none":
        dataset = dataset.replace(splits={name: part for name, part in dataset.splits.items() if name != "valid"})
    return dataset.replace(metadata={**dataset.metadata, "validation": choice})


def fit(
    config: FitConfig,
    directory: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callback] = (),
    announce: Callable[[FitConfig], None] = lambda config: None,
) -> dict[str, Any]:
    """Train, evaluate and write a run directory.

    Parameters
    ----------
    config : FitConfig
    directory : path, optional
        Must not exist or be empty. By default ``runs/<dataset>-<model>[-<variant>]-s<seed>``, numbered when taken.
    callbacks : sequence of Callback
    announce : callable
        Is given the resolved configuration before anything is trained.

    Returns
    -------
    dict
        What ``mbgraph fit --json`` prints.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    dataset = prepare_dataset(config)
    model = _build(config, dataset)
    config = _resolve(config, model)
    announce(config)
    path = _new_directory(config, dataset, directory)
    source = config.dataset if config.dataset == "demo" else str(find_dataset(config.dataset))
    write_json(
        path / "dataset.json",
        {
            "name": dataset.name,
            "source": source,
            "content_hash": dataset.content_hash(),
            "users": dataset.num_users,
            "items": dataset.num_items,
            "counts": dataset.counts,
            "protocol": config.protocol,
            "validation": dataset.metadata["validation"],
        },
    )
    write_json(path / "env.json", _environment())
    with atomic_write(path / "config.toml") as file:
        tomli_w.dump({"format": FORMAT, "mbgraph": __version__, **config.to_dict()}, file)
    return _execute(config, path, dataset, model, callbacks, resumed=False)


def plan(config: FitConfig, announce: Callable[[FitConfig], None] = lambda config: None) -> dict[str, Any]:
    """Check a configuration and say what it would take, without training or writing anything.

    Returns
    -------
    dict
        ``parameters``; ``steps_per_epoch``; ``evaluation_block``, the users scored at a time; ``memory``, MiB by part,
        ``memory_mb``, their sum, and ``available_mb``, what the machine can still give.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    dataset = prepare_dataset(config)
    model = _build(config, dataset)
    config = _resolve(config, model)
    announce(config)
    parts = _memory(config, model, dataset)
    steps = 0
    if model.trainable:
        rows = dataset.num_users if config.training["sampler"] == "per-user" else len(dataset.edges[dataset.target])
        steps = -(-rows // config.training["batch_size"])
    return {
        "dataset": dataset.name,
        "model": config.model,
        "variant": config.variant,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps_per_epoch": steps,
        "evaluation_block": block_rows(dataset.num_items),
        "memory": {name: round(size / 2**20, 1) for name, size in parts.items()},
        "memory_mb": round(sum(parts.values()) / 2**20, 1),
        "available_mb": round(available_memory() / 2**20, 1),
    }


def _memory(config: FitConfig, model: Recommender, dataset: MultiBehaviorDataset) -> dict[str, int]:
    """Return the estimate for a built model; models without tables keep the data only."""
    options = config.options
    known = {key: options[key] for key in ("embedding_dim", "num_layers", "row_dtype") if key in options}
    behaviors = len(getattr(model, "behaviors", dataset.behaviors))
    return estimate_memory(dataset, **known, batch_size=config.training.get("batch_size", 0), behaviors=behaviors)


def resume(directory: str | os.PathLike[str], callbacks: Sequence[Callback] = (), threads: int = 0) -> dict[str, Any]:
    """Continue a killed or interrupted run to the numbers it would have reached."""
    run = Run.load(directory)
    config = run.fit_config
    if threads or config.threads:
        torch.set_num_threads(threads or config.threads)
    dataset = run.dataset()
    return _execute(config, run.path, dataset, _build(config, dataset), callbacks, resumed=True)


def _execute(
    config: FitConfig,
    path: Path,
    dataset: MultiBehaviorDataset,
    model: Recommender,
    callbacks: Sequence[Callback],
    resumed: bool,
) -> dict[str, Any]:
    evaluation = dict(config.evaluation)
    metric, cutoffs = evaluation.pop("metric", ""), tuple(evaluation.pop("k"))
    outcome: dict[str, Any] = {
        "run": str(path),
        "dataset": dataset.name,
        "model": config.model,
        "variant": config.variant,
        "seed": config.seed,
        "epochs": 0,
        "best_epoch": 0,
        "seconds_per_epoch": 0.0,
        "interrupted": False,
    }
    if model.trainable:
        trainer = Trainer(
            model,
            dataset,
            run_regularizers(config, model),
            metric=metric,
            rng=config.seed,
            device=config.device,
            directory=path,
            callbacks=callbacks,
            **config.training,
            **evaluation,
        )
        result = trainer.fit(resume=resumed and (path / "checkpoint.pt").exists())
        outcome.update(
            epochs=result.epochs,
            best_epoch=result.best_epoch,
            seconds_per_epoch=result.seconds_per_epoch,
            interrupted=result.interrupted,
        )
    results: dict[str, EvaluationResult] = {}
    if not outcome["interrupted"]:
        model.eval()
        splits = tuple(split for split in ("valid", "test") if len(dataset.splits.get(split, ())))
        results = evaluate_splits(model, dataset, splits=splits, k=cutoffs, **evaluation) if splits else {}
    outcome["peak_memory_mb"] = peak_memory_mb()
    for split in ("valid", "test"):
        outcome[split] = results[split].metrics if split in results else {}
    outcome["users_evaluated"] = results["test"].users_evaluated if "test" in results else 0
    if not outcome["interrupted"]:
        details = {split: result.to_dict() for split, result in results.items()}
        for split, name in PER_USER.items():
            if split in results:
                results[split].save_per_user(path / name)
        write_json(path / "test.json", {**outcome, "details": details})
        outcome["details"] = details
    return outcome


def run_regularizers(config: FitConfig, model: Recommender) -> list[Regularizer]:
    """Return the model's own regularizers with the configuration's changes applied."""
    chosen = {entry.name: regularizer_options(entry) for entry in model.default_regularizers()}
    for entry in config.regularizers:
        name = str(entry["name"])
        REGULARIZERS.get(name)
        chosen[name] = {
            **chosen.get(name, {}),
            **{key: value for key, value in entry.items() if key != "name"},
        }
    return [build_regularizer(name, options) for name, options in chosen.items()]


def _build(config: FitConfig, dataset: MultiBehaviorDataset) -> Recommender:
    model_class = MODELS.get(config.model)
    options = dict(config.options)
    if config.variant is not None:
        if "variant" not in model_class.option_names():
            raise UsageError(f"model {config.model!r} has no variants", "leave --variant out")
        options["variant"] = config.variant
    if "rng" in model_class.option_names():
        options["rng"] = config.seed
    if not model_class.trainable:
        for given, flag in ((config.training, "training options"), (config.regularizers, "regularizers")):
            if given:
                raise UsageError(f"model {config.model!r} is not trained and reads no {flag}", "leave them out")
    return build_model(config.model, dataset.graph, dataset.target, options)


def _resolve(config: FitConfig, model: Recommender) -> FitConfig:
    """Fill in every default, so that the written configuration says everything."""
    options = {key: value for key, value in model.options().items() if key != "variant"}
    changes: dict[str, Any] = {"options": options}
    if config.variant is None and model.variants:
        changes["variant"] = model.variants[0]
    if model.trainable:
        defaults = vars(model.training_defaults)
        changes["training"] = {**defaults, "diagnose_every": 10, **config.training}
        changes["regularizers"] = [
            {"name": entry.name, **regularizer_options(entry)} for entry in run_regularizers(config, model)
        ]
        resolve_device(config.device)
    # A catalogue of fewer items than the usual cut-offs is ranked as far as it goes.
    usual = [k for k in DEFAULT_K if k <= model.num_items] or [model.num_items]
    evaluation = {"k": usual, "mask": "train-target", "ties": "realistic", **config.evaluation}
    check_cutoffs(evaluation["k"], model.num_items)
    if model.trainable:
        evaluation.setdefault("metric", f"HR@{usual[0]}")
    changes["evaluation"] = evaluation
    return config.replace(**changes)


def _new_directory(config: FitConfig, dataset: MultiBehaviorDataset, directory: str | os.PathLike[str] | None) -> Path:
    if directory is None:
        parts = [dataset.name, config.model, *([config.variant] if config.variant else []), f"s{config.seed}"]
        stem = Path("runs") / "-".join(parts)
        path, number = stem, 2
        while path.exists():
            path, number = stem.with_name(f"{stem.name}-{number}"), number + 1
    else:
        path = Path(directory)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path} already exists", f"continue it with --resume {path}, or choose another --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {path}: {error.strerror or error}", "choose another --out") from error
    return path


def _raw_config(path: Path) -> dict[str, Any]:
    from mbgraph.config import tomllib

    try:
        return tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path / 'config.toml'} ({error})", "fit the model again") from error


def _environment() -> dict[str, Any]:
    packages = ("mbgraph", "torch", "dgl", "numpy", "numba", "pandas", "scipy", "safetensors")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "versions": versions,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def cpu_name() -> str:
    """Return the processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def peak_memory_mb() -> float:
    """Return the largest resident set of this process so far in MiB; 0 where the platform does not tell."""
    try:  # Linux: getrusage would also count the process that started this one
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
