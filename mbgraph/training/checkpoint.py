"""Checkpoints: everything a killed run needs to reach the same numbers, written after every epoch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from mbgraph.errors import RunError
from mbgraph.files import atomic_write

__all__ = ["load_checkpoint", "load_weights", "save_checkpoint", "save_weights"]

FORMAT = 2


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write tensors and plain values, atomically."""
    with atomic_write(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted, never code.

    Raises
    ------
    RunError
        If the file is missing, damaged, holds anything else, or has another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"no checkpoint at {path}", "start the run again without --resume") from error
    except Exception as error:  # torch raises pickle, zip and runtime errors alike for damaged or hostile files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"cannot read checkpoint {path} ({reason[:100]})", "start the run again without --resume"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RunError(f"checkpoint {path} has another format than {FORMAT}", "use the mbgraph version that wrote it")
    return state


def save_weights(path: str | os.PathLike[str], weights: dict[str, Tensor]) -> None:
    """Write model weights as safetensors, atomically."""
    with atomic_write(path) as file:
        file.write(save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}))


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read safetensors; a missing or damaged file raises `RunError`."""
    if not Path(path).exists():
        raise RunError(
            f"no model at {path}", "the run has not finished an epoch; continue it with mbgraph fit --resume"
        )
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own error type from Rust
        raise RunError(f"cannot read model {path} ({error})", "fit the model again") from error
