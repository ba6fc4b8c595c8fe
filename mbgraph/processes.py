"""Several processes that train one model, as ``torchrun`` starts them: who is who, and what they exchange.

Every process runs the same program on the same batches. They share the work of message passing: each computes its rows
of every layer and of every gradient, and gets the others'. Whatever else is computed, all compute alike, so every
number is the one that a process alone comes to, whatever the model, its terms and its update rule. The first process
alone writes.

Until `joined` is entered, a process is alone; a process group that somebody else has opened changes nothing here.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mbgraph.errors import MbgraphError, RunError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = [
    "any_of",
    "asked_for",
    "check_same",
    "count",
    "first",
    "follow",
    "is_first",
    "joined",
    "rank",
    "share_rows",
    "tell",
]

_state = {"rank": 0, "count": 1}


def rank() -> int:
    """Return the number of this process, from 0."""
    return _state["rank"]


def count() -> int:
    """Return how many processes train together, 1 for a process alone."""
    return _state["count"]


def is_first() -> bool:
    """Return whether this process is the one that writes and tells."""
    return rank() == 0


def asked_for() -> tuple[int, int]:
    """Return the number of this process and how many there are to be, as ``torchrun`` says it: (0, 1) without.

    Raises
    ------
    UsageError
        If the environment says it wrongly.
    """
    texts = [os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))]
    if not all(text.isdecimal() for text in texts) or not int(texts[0]) < int(texts[1]):
        raise UsageError(
            f"RANK={texts[0]} and WORLD_SIZE={texts[1]} name no process", "start with torchrun, or unset both"
        )
    return int(texts[0]), int(texts[1])


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Train together with the other processes that ``torchrun`` has started, while entered; alone without it.

    On CPUs they speak over gloo, on CUDA over nccl, each with the card of its number on its machine. Where a machine
    has fewer cards than processes, which nccl refuses, they speak over gloo there too.

    Raises
    ------
    UsageError
        If torch cannot do it, or the environment names no others.
    RunError
        If they do not meet.
    """
    number, processes = asked_for()
    if processes == 1 or count() > 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        raise UsageError("this build of torch knows no torch.distributed", "start one process, without torchrun")
    if dist.is_initialized():
        raise UsageError("somebody else has opened a process group here", "close it first, or start without torchrun")
    backend, cards = "gloo", torch.cuda.device_count()
    if cards:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % cards)
        if cards >= int(os.environ.get("LOCAL_WORLD_SIZE", "1")) and dist.is_nccl_available():
            backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, rank=number, world_size=processes)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"process {number} of {processes} does not reach the others ({reason[:120]})",
            "start all with torchrun; on one machine set GLOO_SOCKET_IFNAME=lo",
        ) from error
    _state.update(rank=number, count=processes)
    try:
        yield
    finally:
        _state.update(rank=0, count=1)
        dist.destroy_process_group()


def tell(value: Any) -> Any:
    """Return the first process' value, which JSON can hold, in all of them."""
    if count() == 1:
        return value
    import torch
    import torch.distributed as dist

    text = torch.tensor(list(json.dumps(value).encode() if is_first() else b""), dtype=torch.uint8)
    length = torch.tensor(len(text))
    dist.broadcast(length, 0)
    text = text if is_first() else torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(text, 0)
    return json.loads(bytes(text.tolist()))


def first(action: Callable[[], Any]) -> Any:
    """Let the first process act, and return in all of them what came of it: a value that JSON can hold, or its error.

    Raises
    ------
    MbgraphError
        What the action raised, in every process.
    """
    if count() == 1:
        return action()
    raised: MbgraphError | None = None
    answer: dict[str, Any] = {}
    if is_first():
        try:
            answer = {"value": action()}
        except MbgraphError as error:
            raised, answer = error, {"error": error.message, "remedy": error.remedy, "code": error.exit_code}
    told = tell(answer)
    if raised is not None:
        raise raised
    if "error" in told:
        kind = UsageError if told["code"] == UsageError.exit_code else RunError
        raise kind(told["error"], told["remedy"])
    return told["value"]


def check_same(what: str, value: str) -> None:
    """Raise `RunError` in every process unless all have the same text."""
    if count() == 1:
        return
    if any_of(tell(value) != value):
        raise RunError(f"the processes do not have the same {what}", f"give every machine the same {what}")


def any_of(flag: bool) -> bool:
    """Return whether the flag is set in any process."""
    if count() == 1:
        return flag
    import torch
    import torch.distributed as dist

    number = torch.tensor(int(flag))
    dist.all_reduce(number)
    return bool(number)


def follow(tensors: Iterable[Tensor]) -> None:
    """Let all processes have the first one's numbers, in place: machines unlike each other may round differently."""
    if count() == 1:
        return
    import torch
    import torch.distributed as dist

    with torch.no_grad():
        for tensor in tensors:
            dist.broadcast(tensor.data, 0)


def share_rows(tables: Sequence[Tensor | np.ndarray[Any, Any]], bounds: Sequence[Sequence[int]]) -> None:
    """Fill in the rows of tables that other processes have made.

    Parameters
    ----------
    tables : sequence of Tensor or array (N, ..)
        Rows one after the other in memory; written to.
    bounds : sequence of sequences of int
        Per table where the rows of each process begin, and their number last: ``count() + 1`` numbers.
    """
    if count() == 1:
        return
    import torch
    import torch.distributed as dist

    works = []
    for table, cuts in zip(tables, bounds, strict=True):
        given = table if isinstance(table, torch.Tensor) else torch.from_numpy(_words(table))
        for process in range(count()):
            part = given[cuts[process] : cuts[process + 1]]
            if part.numel():
                works.append(dist.broadcast(part, process, async_op=True))
    for work in works:
        assert work is not None  # it is for a process outside the group, and all are in it
        work.wait()


def _words(table: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a table as one that gloo knows: packed rows are words of 32 bits, signed or not."""
    return table.view("int32") if table.dtype == "uint32" else table
