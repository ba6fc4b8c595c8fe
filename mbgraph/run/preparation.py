"""From a configuration to the data and the model of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mbgraph.config import FitConfig
from mbgraph.data.catalog import load_dataset
from mbgraph.data.check import behaviors_within_target
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.likeness import unlike_test
from mbgraph.data.protocols import apply_protocol
from mbgraph.data.splits import hold_out, merge_split
from mbgraph.errors import UsageError
from mbgraph.models.base import Recommender, build_model
from mbgraph.models.batch_rule import choose_batch
from mbgraph.training.callbacks import Callback
from mbgraph.training.devices import resolve_device
from mbgraph.training.trainer import Trainer

__all__ = ["make_model", "make_trainer", "notices", "prepare_dataset", "settled"]


def prepare_dataset(config: FitConfig) -> MultiBehaviorDataset:
    """Load a dataset, split it by the protocol and arrange its validation part (``metadata["validation"]``)."""
    dataset = apply_protocol(load_dataset(config.dataset), config.protocol, rng=0)
    choice: str = config.validation
    if choice == "auto":
        # An untrained model selects nothing: it keeps every train pair.
        choice = "given" if len(dataset.valid) else "holdout" if config.model_class.trainable else "none"
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


def make_model(config: FitConfig, dataset: MultiBehaviorDataset) -> Recommender:
    """Build the model on a dataset's train edges, and give it the runs that its options name.

    Raises
    ------
    RunError
        If one of these runs is not there.
    DataError
        If one was trained on other train pairs.
    """
    options = config.options if config.variant is None else {"variant": config.variant, **config.options}
    model = build_model(
        config.model, dataset.graph, dataset.target, options, behaviors=dataset.behaviors, rng=config.seed
    )
    names: tuple[str, ...] = getattr(model.options, "runs", ())
    if names:
        from mbgraph.run.directory import Run  # a run builds its model here

        found = {}
        for name in names:
            found[name] = Run.load(name).model()
            found[name].check_dataset(dataset)
        model.attach(found)
    return model


def make_trainer(
    config: FitConfig,
    model: Recommender,
    dataset: MultiBehaviorDataset,
    callbacks: Sequence[Callback],
    directory: Path | None = None,
) -> Trainer:
    """Return a trainer of a model as a configuration says; it writes into ``directory`` where there is one."""
    return Trainer(
        model,
        dataset,
        config.chosen_regularizers,
        training=config.training_options,
        evaluation=config.evaluation_options,
        rng=config.seed,
        device=config.device,
        directory=directory,
        callbacks=callbacks,
    )


def settled(config: FitConfig, model: Recommender, dataset: MultiBehaviorDataset) -> tuple[FitConfig, list[str]]:
    """Return the configuration with numbers for what ``auto`` leaves to the data, and what to tell of them."""
    if not model.trainable or config.training_options.batch_size != "auto":
        return config, []
    choice = choose_batch(model, dataset, config.training_options, config.chosen_regularizers)
    training = {**config.training, "batch_size": choice.training.rows, "lr": choice.training.lr}
    terms = tuple({"name": entry.name, **entry.plain()} for entry in choice.regularizers)
    return config.replace(training=training, regularizers=terms), [choice.note]


def notices(config: FitConfig, dataset: MultiBehaviorDataset) -> list[str]:
    """Return what a user should know before training, a line each."""
    found = [
        f"every pair of {behavior!r} is a pair of {dataset.target!r}: a model can read the answer in it; leave it out "
        "unless it is known before the purchase"
        for behavior in behaviors_within_target(dataset)
    ]
    if config.model_class.trainable:
        device = resolve_device(config.device)
        if config.device == "auto" and device.type == "cuda":
            found.append(f"--device auto took CUDA: {torch.cuda.get_device_name(device)}")
        unlike = unlike_test(dataset)
        if unlike is not None:
            how = dataset.metadata["validation"]
            found.append(
                f"{unlike} (--validation {how}); split again with --protocol loo, random or temporal:CUT, or set the "
                "epochs yourself with --validation none"
            )
    return found
