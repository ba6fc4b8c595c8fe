"""Named protocols: how a published dataset's target pairs are split again, explicitly and on record."""

from __future__ import annotations

import numpy as np

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs
from mbgraph.data.splits import PROTOCOLS, parse_protocol, split_pairs, temporal_cuts
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.random import RNGLike

__all__ = ["RESPLITS", "apply_protocol", "check_protocol"]

RESPLITS = ("paper", *(name for name in PROTOCOLS if name not in ("auto", "given", "none")))
"""Protocols that a dataset can be split by again; ``paper`` leaves it as it is."""


def check_protocol(protocol: str) -> None:
    """Raise `UnknownNameError` or `UsageError` for a protocol that cannot be understood."""
    if protocol == "paper":
        return
    if protocol.partition(":")[0] not in {known.partition(":")[0] for known in RESPLITS}:
        raise UnknownNameError("protocol", protocol, RESPLITS)
    parse_protocol(protocol)


def apply_protocol(ds: MultiBehaviorDataset, protocol: str, rng: RNGLike = 0) -> MultiBehaviorDataset:
    """Split all target pairs of a dataset again.

    Train, validation and test pairs are put together, in that order, and split by the protocol. Auxiliary pairs stay
    train edges, except under ``temporal``, which leaves out those at or after its first cut: nobody knows them then.

    Parameters
    ----------
    ds : MultiBehaviorDataset
    protocol : str
        ``"paper"``: the split as it was published or imported; ``ds`` itself. ``"loo"``: each user's last pair is test,
        the one before it validation, as long as one stays in train; last by time, or in random order where there are
        no times. ``"random"``: the same in random order. ``"ratio:0.7,0.2,0.1"``: per user (`assign_ratio`).
        ``"temporal:CUT"`` or ``"temporal:VALID,TEST"``: one moment for all users, a number in the clock of the data or
        an ISO date.
    rng : int or Generator
        For random orders.

    Returns
    -------
    MultiBehaviorDataset
        With the act added to ``metadata["splits"]``.

    Raises
    ------
    UnknownNameError, UsageError
        For a protocol that cannot be understood, or needs times that the data does not have.
    DataError
        If a cut leaves no train or no test pair, or a behavior without pairs.
    """
    check_protocol(protocol)
    if protocol == "paper":
        return ds
    parts = [ds.edges[ds.target], *(ds.splits[split] for split in ("valid", "test") if split in ds.splits)]
    times = [part.time for part in parts]
    time = None if any(moment is None for moment in times) else np.concatenate([np.asarray(moment) for moment in times])
    pool = Pairs(np.concatenate([part.user for part in parts]), np.concatenate([part.item for part in parts]), time)
    train, held_out, record = split_pairs(pool, protocol, rng=rng)
    edges = {**ds.edges, ds.target: train}
    name, cuts = parse_protocol(protocol)
    if name == "temporal":
        assert time is not None
        first = temporal_cuts(cuts, time)[0]
        left_out = 0
        for behavior in ds.auxiliary:
            pairs = ds.edges[behavior]
            if pairs.time is None:
                raise UsageError(f"split {protocol!r} needs times of {behavior!r} too", "use another protocol")
            known = pairs.time < first
            left_out += int((~known).sum())
            edges[behavior] = pairs[known]
        record["later_auxiliary"] = left_out
    record.update(act="protocol", pairs=len(pool))
    metadata = {**ds.metadata, "splits": [*ds.metadata.get("splits", []), record]}
    return ds.replace(edges=edges, splits=held_out, metadata=metadata)
