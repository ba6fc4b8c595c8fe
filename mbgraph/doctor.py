"""Is this machine fit for work: versions, device, threads, graph, datasets. Findings, not prints."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Callable
from typing import Any

from mbgraph import __version__
from mbgraph._dgl import OWN_REMEDY, REMEDY, graph_carrier
from mbgraph.errors import MbgraphError, RunError, one_line
from mbgraph.files import user_path
from mbgraph.machine import cpu_name, package_version

__all__ = ["OPTIONAL", "REQUIRED", "check_graph", "check_torch", "examine"]

REQUIRED = ("torch", "numpy", "pandas", "scipy", "pyarrow", "safetensors", "pydantic", "click", "rich")
OPTIONAL = ("dgl", "numba")


def examine() -> dict[str, Any]:
    """Look at everything training depends on.

    Returns
    -------
    dict
        ``healthy`` (bool); ``problems``: one line each, with the remedy; ``versions``: package to version or None;
        ``machine``: ``platform``, ``cpu``, ``cores``, ``threads``, ``kernels`` (what becomes of compiled code) and
        ``device`` (what ``--device auto`` takes, None where torch does not load); ``graph``: ``ok``, ``carrier``
        (``"dgl"``, ``"mbgraph"`` for its own heterograph, None where neither works), ``reason`` (why this one) and
        ``detail`` (what was checked); ``datasets``: ``places`` (searched folders with whether they exist) and ``found``
        (names).
    """
    problems: list[str] = []
    machine: dict[str, Any] = {
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "threads": None,
        "device": None,
        "kernels": _kernels(),
    }
    machine.update(_attempt(check_torch, problems) or {})
    # A graph stands on torch: without it, its own failure would only repeat the reason.
    graph = None if problems else _attempt(check_graph, problems)
    versions = {name: package_version(name) for name in (*REQUIRED, *OPTIONAL)}
    absent = [name for name in REQUIRED if versions[name] is None and name != "torch"]
    problems += [f"{name} is not installed; run: pip install {name}" for name in absent]
    datasets = _attempt(lambda: _datasets(problems), problems)
    return {
        "healthy": not problems,
        "problems": problems,
        "versions": {"python": platform.python_version(), "mbgraph": __version__, **versions},
        "machine": machine,
        "graph": {
            "ok": graph is not None,
            **(graph or {"carrier": None, "reason": None, "detail": "not usable, see problems"}),
        },
        "datasets": datasets or {"places": [], "found": []},
    }


def _kernels() -> str:
    """Say what becomes of compiled kernels."""
    if package_version("numba") is None:
        return "numba is not installed: plain paths run"
    from mbgraph._kernels import is_kept

    if is_kept():
        return "kept between runs"
    return "compiled at every start, for no cache folder can be written; set NUMBA_CACHE_DIR to one that can"


def check_torch() -> dict[str, Any]:
    """Import torch and return its threads and the device that ``auto`` means.

    Raises
    ------
    RunError
        If torch does not load.
    """
    try:
        torch = importlib.import_module("torch")
        return {"threads": torch.get_num_threads(), "device": "cuda" if torch.cuda.is_available() else "cpu"}
    except Exception as error:  # a broken binary raises anything from OSError to AttributeError
        version = package_version("torch")
        what = f"torch {version} does not load ({one_line(error)})" if version else "torch is not installed"
        raise RunError(what, f"run: {REMEDY}") from error


def check_graph() -> dict[str, str]:
    """Open what carries the graph and compare one neighbour sum with the dense product on a 2 x 2 graph.

    A kernel can load and be wrong (dmlc/dgl#5725 returned zeros), so loading alone is no proof.

    Returns
    -------
    dict
        ``carrier``, ``reason`` and ``detail``, see `examine`.

    Raises
    ------
    MbgraphError
        One line with both versions and the remedy.
    """
    carrier = graph_carrier()
    torch = importlib.import_module("torch")
    name = f"dgl {package_version('dgl')}" if carrier.name == "dgl" else "mbgraph's own heterograph"
    versions = f"{name} with torch {package_version('torch')}"
    remedy = OWN_REMEDY if carrier.name == "dgl" else f"run: {REMEDY}"
    dense = torch.tensor([[1.0, 1.0], [0.0, 1.0]])  # users x items
    rows = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])  # (2, 3), one row per user
    try:
        users, items = dense.nonzero(as_tuple=True)
        make, ops = carrier.module.heterograph, carrier.module.ops
        graph = make({("user", "buy", "item"): (users, items)}, num_nodes_dict={"user": 2, "item": 2})
        summed = ops.copy_u_sum(graph, rows)
    except Exception as error:  # same: a broken binary raises anything
        raise RunError(f"{versions} cannot sum over a graph ({one_line(error)})", remedy) from error
    if not torch.allclose(summed, dense.T @ rows):
        raise RunError(f"{versions} sums neighbours wrongly on a 2 x 2 graph", remedy)
    detail = f"{versions}: a neighbour sum equals the dense product"
    return {"carrier": carrier.name, "reason": carrier.reason, "detail": detail}


def _attempt(check: Callable[[], Any], problems: list[str]) -> Any:
    try:
        return check()
    except MbgraphError as error:
        problems.append(str(error))
        return None


def _datasets(problems: list[str]) -> dict[str, Any]:
    from mbgraph.data.catalog import home_folder, list_datasets

    given = os.environ.get("MBGRAPH_DATA")
    places = [("$MBGRAPH_DATA", user_path(given) if given else None), ("~/.cache/mbgraph", home_folder())]
    listed = list_datasets()
    problems += [entry["error"] for entry in listed if "error" in entry]
    return {
        "places": [
            {"name": name, "path": None if path is None else str(path), "exists": path is not None and path.is_dir()}
            for name, path in places
        ],
        "found": [entry["name"] for entry in listed],
    }
