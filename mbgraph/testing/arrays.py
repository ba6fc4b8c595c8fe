"""Compare with arrays that another implementation produced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.models.triples import TripleBatch

__all__ = ["assert_matches", "golden_dataset", "golden_triples"]


def assert_matches(mine: Any, reference: Any, tolerance: float = 1e-5) -> None:
    """Assert that no entry differs by more than ``tolerance`` of the reference's largest magnitude.

    An absolute bound would be too loose for small arrays and too tight for large ones.
    """
    made = np.asarray(mine.detach().cpu() if hasattr(mine, "detach") else mine)
    wanted = np.asarray(reference)
    assert made.shape == wanted.shape, f"shape {made.shape}, expected {wanted.shape}"
    if wanted.size:
        assert np.isfinite(made).all(), "not finite"
        worst, largest = float(np.abs(made - wanted).max()), float(np.abs(wanted).max())
        assert worst <= tolerance * largest, f"differs by {worst:.3g} of {largest:.3g}"


def golden_dataset(arrays: Mapping[str, Any], test_edges: str = "test_edges") -> MultiBehaviorDataset:
    """Return the dataset that a set of golden arrays stands on: its behaviors in order, and the held-out test pairs."""
    behaviors = [str(name) for name in arrays["behaviors"]]
    return MultiBehaviorDataset(
        "golden",
        Vocabulary(size=int(arrays["n_users"]), kind="user"),
        Vocabulary(size=int(arrays["n_items"]), kind="item"),
        {name: Pairs(*arrays[f"edges_{name}"].T) for name in behaviors},
        behaviors[-1],
        {"test": Pairs(*arrays[test_edges].T)},
    )


def golden_triples(arrays: Mapping[str, Any], kind: str) -> TripleBatch:
    """Return the batch ``batch_<kind>`` of a set of golden arrays: (rows, behavior, (user, positive, negative)).

    A row is -1 in a behavior that its user lacks; a user without any edge is -1 everywhere and becomes the isolated
    user.
    """
    rows = arrays[f"batch_{kind}"]
    users = rows[:, :, 0].max(1)
    columns = {str(name): torch.from_numpy(rows[:, place].copy()) for place, name in enumerate(arrays["behaviors"])}
    return TripleBatch(
        torch.from_numpy(np.where(users < 0, arrays["isolated_user"], users)),
        {name: column[:, 1] for name, column in columns.items()},
        {name: column[:, 2] for name, column in columns.items()},
    )
