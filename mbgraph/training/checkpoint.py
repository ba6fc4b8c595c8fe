"""Checkpoints: everything a killed run needs to reach the same numbers, written after every epoch."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from mbgraph import manifest
from mbgraph.errors import RunError

__all__ = [
    "CHECKPOINT",
    "WEIGHTS",
    "check_weights",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
    "save_weights",
]

FORMAT = 2
CHECKPOINT = "checkpoint.pt"
WEIGHTS = "model.safetensors"


def save_checkpoint(
    folder: str | os.PathLike[str], state: dict[str, Any], weights: dict[str, Tensor] | None = None
) -> None:
    """Write tensors and plain values, and model weights if there are better ones; both are recorded in the manifest.

    Raises
    ------
    RunError
        If they cannot be written, for example because the disk is full. What was there stays.
    """
    with manifest.recorded(Path(folder), [CHECKPOINT] if weights is None else [CHECKPOINT, WEIGHTS]) as files:
        with _system_errors(files[0]) as file:
            torch.save({"format": FORMAT, **state}, file)
        if weights is not None:
            files[1].write(_packed(weights))


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted, never code.

    Raises
    ------
    RunError
        If the file is missing, damaged, not the one that was written, holds anything else, or has another format.
    """
    path = Path(path)
    if not path.exists():
        raise RunError(f"no checkpoint at {path}", "start the run again without --resume")
    manifest.check(path.parent, [path.name])
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors alike for damaged or hostile files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"cannot read checkpoint {path} ({reason[:100]})", "start the run again without --resume"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RunError(f"checkpoint {path} has another format than {FORMAT}", "use the mbgraph version that wrote it")
    return state


def save_weights(folder: str | os.PathLike[str], weights: dict[str, Tensor]) -> None:
    """Write model weights as safetensors, recorded in the manifest."""
    with manifest.recorded(Path(folder), [WEIGHTS]) as files:
        files[0].write(_packed(weights))


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read safetensors; a file that is missing, damaged or not the one that was written raises `RunError`."""
    path = Path(path)
    if not path.exists():
        raise RunError(
            f"no model at {path}", "the run has not finished an epoch; continue it with mbgraph fit --resume"
        )
    manifest.check(path.parent, [path.name])
    try:
        weights = load_file(path)
    except Exception as error:  # safetensors raises its own error type from Rust
        raise RunError(f"cannot read model {path} ({error})", "fit the model again") from error
    # tensors that lie in the file keep it open, and Windows replaces no file that is
    return {name: tensor.clone() for name, tensor in weights.items()} if sys.platform == "win32" else weights


def check_weights(model: torch.nn.Module, weights: dict[str, Tensor], what: str) -> None:
    """Raise `RunError` unless weights are of the names, shapes and types of the model's: torch would convert types."""
    known = model.state_dict()
    if not isinstance(weights, dict) or known.keys() != weights.keys():
        raise RunError(f"{what} belongs to another model", "resume with the run's own configuration, or fit again")
    for name, tensor in known.items():
        found = weights[name]
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            raise RunError(
                f"{what} belongs to another model ({name} is no {tensor.dtype} of shape {tuple(tensor.shape)})",
                "resume with the run's own configuration, or fit again",
            )


def _packed(weights: dict[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})


class _Remembering:
    """A file that remembers what the system said: torch tells of a full disk only that a position is unexpected."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()


@contextlib.contextmanager
def _system_errors(file: IO[bytes]) -> Iterator[Any]:
    remembering = _Remembering(file)
    try:
        yield remembering
    except RuntimeError as error:
        if remembering.error is not None:
            raise remembering.error from error
        raise
