"""The only door to DGL, and what carries the graph where DGL does not: opened on first use, with a reason to show."""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from mbgraph.errors import MbgraphError, UnknownNameError, one_line
from mbgraph.machine import package_version

__all__ = [
    "CHOICES",
    "OWN_REMEDY",
    "REMEDY",
    "SWITCH",
    "Carrier",
    "DGLImportError",
    "graph_carrier",
    "heterograph",
    "import_dgl",
    "open_dgl",
]

SWITCH = "MBGRAPH_GRAPH"
"""Environment variable that says what carries the graph, one of `CHOICES`; read when the first graph is made."""

CHOICES = ("auto", "dgl", "own")
REMEDY = 'pip install "torch>=2.5" "dgl>=1.1.3,<3" packaging'
OWN_REMEDY = f"set {SWITCH}=own to do without DGL, or run: {REMEDY}"

_GRAPHBOLT = "dgl.graphbolt"
_carrier: Carrier | None = None
_dgl: ModuleType | None = None
_left_out: str | None = None  # why dgl.graphbolt is empty, None where it loads or does not exist


class DGLImportError(MbgraphError):
    """DGL cannot be imported with the installed torch, or torch itself cannot."""


@dataclass(frozen=True)
class Carrier:
    """What holds graphs in this process.

    Attributes
    ----------
    name : {"dgl", "mbgraph"}
        DGL, or mbgraph's own heterograph.
    module : module
        Has ``heterograph``, ``reverse`` and ``ops.copy_u_sum`` under DGL's names.
    reason : str
        Why this one, for people.
    """

    name: str
    module: ModuleType
    reason: str


def import_dgl() -> ModuleType:
    """Return the module that carries the graph: DGL where it loads, else one of mbgraph's own with the same names.

    Raises
    ------
    DGLImportError
        If ``MBGRAPH_GRAPH=dgl`` asks for DGL and it does not load, or if torch does not load.
    """
    return graph_carrier().module


def graph_carrier() -> Carrier:
    """Choose what carries the graph on the first call, and return the same ever after.

    Raises
    ------
    DGLImportError
        See `import_dgl`.
    UnknownNameError
        If ``MBGRAPH_GRAPH`` is none of `CHOICES`.
    """
    global _carrier
    if _carrier is None:
        choice = os.environ.get(SWITCH) or "auto"
        if choice not in CHOICES:
            raise UnknownNameError(f"value of {SWITCH}", choice, CHOICES)
        _carrier = _own(f"{SWITCH}=own asks for it") if choice == "own" else _dgl_or_own(forced=choice == "dgl")
    return _carrier


def heterograph(
    data_dict: Mapping[tuple[str, str, str], tuple[Any, Any]], num_nodes_dict: Mapping[str, int] | None = None
) -> Any:
    """Make a heterograph, a ``dgl.DGLGraph`` where DGL carries the graph and a `HeteroGraph` elsewhere.

    Parameters
    ----------
    data_dict : mapping of (source node type, edge type, destination node type) to (sources, destinations)
        Node ids from 0: lists, integer arrays or tensors (E,).
    num_nodes_dict : mapping of node type to int, optional
        By default the largest id of each type plus one. Give it: a node without an edge is lost otherwise.

    Examples
    --------
    >>> graph = heterograph({("user", "buy", "item"): ([0, 1], [1, 1])}, num_nodes_dict={"user": 3, "item": 2})
    >>> graph.num_nodes("user"), graph.num_edges("buy")
    (3, 2)
    """
    return import_dgl().heterograph(data_dict, num_nodes_dict=num_nodes_dict)


def open_dgl() -> ModuleType:
    """Import DGL itself, quietly, with the PyTorch backend, and return the module.

    DGL 2.x imports ``dgl.graphbolt``, whose library carries one exact torch version in its name (dmlc/dgl#7247) and
    which needs parts of torchdata that its later releases lack (dmlc/dgl#7380). Only DGL's distributed training uses
    it, and only when called, so where exactly that import fails an empty module takes its place.

    Raises
    ------
    DGLImportError
        One line with both versions and the pip command that mends the pair.
    """
    global _dgl
    if _dgl is not None:
        return _dgl
    # DGL picks its backend from the environment and talks about it on stdout; both stay inside this block.
    before = os.environ.get("DGLBACKEND")
    os.environ["DGLBACKEND"] = "pytorch"
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _graphbolt_may_fail():
            warnings.simplefilter("ignore")
            _dgl = importlib.import_module("dgl")
    except Exception as error:  # a broken binary raises anything from OSError to AttributeError
        what = f"dgl {_version('dgl')} does not work with torch {_version('torch')} ({one_line(error)})"
        if isinstance(error, ModuleNotFoundError) and error.name == "dgl":
            what = "dgl is not installed"
        raise DGLImportError(what, f"run: {REMEDY}") from error
    finally:
        if before is None:
            os.environ.pop("DGLBACKEND", None)
        else:
            os.environ["DGLBACKEND"] = before
    logging.getLogger("dgl").setLevel(logging.ERROR)
    return _dgl


def _dgl_or_own(*, forced: bool) -> Carrier:
    try:
        module = open_dgl()
    except DGLImportError as error:
        if forced:
            raise
        return _own(error.message)
    reason = f"dgl {_version('dgl')} loads with torch {_version('torch')}"
    if _left_out:
        reason += f"; {_GRAPHBOLT} does not ({_left_out}), and mbgraph does not need it"
    return Carrier("dgl", module, reason)


def _own(reason: str) -> Carrier:
    try:
        module = importlib.import_module("mbgraph._heterograph")
    except Exception as error:  # same: a broken torch raises anything
        version = _version("torch")
        absent = version == "not installed"
        what = "torch is not installed" if absent else f"torch {version} does not load ({one_line(error)})"
        raise DGLImportError(what, f"run: {REMEDY}") from error
    return Carrier("mbgraph", module, reason)


@contextlib.contextmanager
def _graphbolt_may_fail() -> Iterator[None]:
    """Within the block, an import of ``dgl.graphbolt`` that fails leaves an empty module; no other import changes."""
    finder = _GraphboltFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _GraphboltFinder(importlib.abc.MetaPathFinder):
    """Finds ``dgl.graphbolt`` where the other finders do, and wraps its loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _GRAPHBOLT:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _ForgivingLoader(spec.loader)
                return spec
        return None


class _ForgivingLoader(importlib.abc.Loader):
    """Runs a module, and empties it if it fails."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        global _left_out
        try:
            self.loader.exec_module(module)
        except Exception as error:  # a missing library, a missing package, a symbol that is gone
            _left_out = reason = one_line(error)
            for name in [name for name in vars(module) if not name.startswith("__")]:
                delattr(module, name)
            for name in [name for name in sys.modules if name.startswith(f"{_GRAPHBOLT}.")]:
                del sys.modules[name]

            def missing(name: str) -> Any:
                raise AttributeError(f"{_GRAPHBOLT} did not load, so it has no {name!r} ({reason})")

            module.__dict__["__getattr__"] = missing


def _version(package: str) -> str:
    return package_version(package) or "not installed"
