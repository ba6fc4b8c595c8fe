"""How much memory a fit will take, before it takes it."""

from __future__ import annotations

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.evaluation.ranking import block_rows

__all__ = ["available_memory", "estimate_memory"]

_IMPORTS = 420 * 2**20  # python, torch, dgl, numba and pandas, loaded and warm
_FLOAT, _INT = 4, 8


def estimate_memory(
    dataset: MultiBehaviorDataset,
    *,
    embedding_dim: int = 0,
    num_layers: int = 0,
    row_dtype: str = "float32",
    batch_size: int = 1024,
    behaviors: int | None = None,
) -> dict[str, int]:
    """Return an estimate of the bytes resident at the peak of training and evaluating, by part.

    Linear in edges, in nodes times width, and in the square of the batch; `docs/speed.md` compares it with
    measurements.

    Parameters
    ----------
    dataset : MultiBehaviorDataset
    embedding_dim, num_layers, row_dtype
        See `mbgraph.nn.BehaviorEncoder`; a width of 0 stands for a model without tables.
    batch_size : int
        Rows per step.
    behaviors : int, optional
        Behaviors that the model encodes; all by default.
    """
    encoded = len(dataset.behaviors) if behaviors is None else behaviors
    nodes = dataset.num_users + dataset.num_items
    edges = sum(len(pairs) for pairs in dataset.edges.values())
    timed = any(pairs.time is not None for pairs in dataset.edges.values())
    sets = len(dataset.behaviors)
    parts = {
        "imports": _IMPORTS,
        "pairs": edges * (2 + timed) * _INT,
        # lists by user for the sampler and the masks, and the keys of what each user has touched
        "histories": edges * 2 * _INT + sets * dataset.num_users * _INT,
    }
    if not embedding_dim:
        return parts
    table = nodes * embedding_dim * _FLOAT
    row = nodes * embedding_dim * (2 if row_dtype == "bfloat16" else _FLOAT)
    # DGL keeps an edge list and both directions of it in int64 with edge ids; the kernels want their indices in 32 bits
    parts["neighbour lists"] = edges * (2 + 4) * _INT + edges * 2 * 4 + 4 * sets * nodes * _INT
    parts["tables, gradient, Adam, best epoch"] = 5 * table
    parts["layers of a step"] = encoded * max(num_layers - 1, 0) * row + 3 * row
    parts["batch"] = (encoded * 24 * batch_size * embedding_dim + 2 * (encoded - 1) * batch_size**2) * _FLOAT
    parts["evaluation"] = (encoded + num_layers + 1) * table + block_rows(
        dataset.num_items
    ) * dataset.num_items * _FLOAT
    return parts


def available_memory() -> int:
    """Return the bytes that this machine can still give."""
    import psutil

    return int(psutil.virtual_memory().available)
