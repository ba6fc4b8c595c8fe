"""The only door to DGL. It is opened on first use, and says what to do when it is stuck."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import warnings
from importlib import metadata
from types import ModuleType

from mbgraph.errors import MbgraphError

__all__ = ["REMEDY", "DGLImportError", "import_dgl"]

REMEDY = 'pip install "torch>=2.2,<2.14" "dgl>=1.1.3,<2" packaging'
_module: ModuleType | None = None


class DGLImportError(MbgraphError):
    """DGL cannot be imported with the installed torch."""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def import_dgl() -> ModuleType:
    """Import DGL quietly with the PyTorch backend and return the module.

    Raises
    ------
    DGLImportError
        One line with both versions and the pip command that mends the pair. DGL 2.x loads a graphbolt library that
        carries one exact torch version in its name, so most pairs of dgl 2.x and torch fail (dmlc/dgl#7247).
    """
    global _module
    if _module is not None:
        return _module
    # DGL picks its backend from the environment and talks about it on stdout; both stay inside this block.
    before = os.environ.get("DGLBACKEND")
    os.environ["DGLBACKEND"] = "pytorch"
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            _module = importlib.import_module("dgl")
    except Exception as error:  # a broken binary raises anything from OSError to AttributeError
        reason = " ".join(str(error).split()) or type(error).__name__
        what = f"dgl {_version('dgl')} does not work with torch {_version('torch')} ({reason[:160]})"
        if isinstance(error, ModuleNotFoundError) and error.name == "dgl":
            what = "dgl is not installed"
        raise DGLImportError(what, f"run: {REMEDY}") from error
    finally:
        if before is None:
            os.environ.pop("DGLBACKEND", None)
        else:
            os.environ["DGLBACKEND"] = before
    logging.getLogger("dgl").setLevel(logging.ERROR)
    return _module
