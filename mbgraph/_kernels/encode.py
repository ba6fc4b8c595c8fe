"""All layers of several relations, combined, at chosen rows, in compiled kernels: float32 tables on the CPU.

Through autograd every layer costs several table-sized temporaries and every gathered block of rows a dense gradient. By
hand a layer is one neighbour sum and arithmetic on rows that are still cached, and the last layer is computed for the
chosen rows only, forward and backward. Under layer normalisation the receiver's factor cancels and is not applied.

A round is a list of tasks that do not wait for each other: every layer is one, over all behaviors and both sides, so
that threads meet as seldom as they can. What surrounds the layers (rows picked and summed, gradients spread) is rounds
too, because through torch it costs a third of a step.

Where several processes train together (`mbgraph.processes`), each takes the tasks of its own rows of a layer, and they
exchange rows after the round. A row is computed by one of them, as a process alone computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbgraph import processes
from mbgraph._kernels import rows as kernels
from mbgraph._kernels.adjacency import Adjacency
from mbgraph._kernels.parallel import Task, even_chunks, run_tasks, tasks_of
from mbgraph.derivatives import derive_plainly

__all__ = ["Operator", "Workspace", "encode", "flat"]

_LINE = 64  # bytes of a cache line
_PIECES = 4  # tasks of a round per thread: more share out better, fewer read the same source less often
_NO_ROWS = np.empty((0, 0), np.float32)
_NO_SCALE = np.empty(0, np.float32)
_ALL = np.empty(0, np.int32)

Array = np.ndarray[Any, Any]
Pairs = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Operator:
    """One relation as the kernels see it: per side, users first.

    Attributes
    ----------
    lists : (Adjacency, Adjacency)
        Neighbours of users, neighbours of items.
    send, receive : (float32 array (U,), float32 array (I,))
        Factors on a node's row when neighbours read it, and on the sum of what it reads.
    """

    lists: tuple[Adjacency, Adjacency]
    send: tuple[Array, Array]
    receive: tuple[Array, Array]


class Workspace:
    """Memory of layers that one step gives back and the next takes again: fresh pages cost more than their use.

    Arrays start at a cache line, so that a row of 64 numbers is four lines and not five.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray[Any, Any]]] = {}

    def take(self, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
        """Return an array with any content."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        block = 1 << (size + _LINE).bit_length()  # few sizes, so that blocks fit again; untouched pages are no memory
        free = self._free.get(block)
        memory = free.pop() if free else np.empty(block, np.uint8)
        start = -memory.ctypes.data % _LINE
        return memory[start : start + size].view(dtype).reshape(shape)

    def give(self, *arrays: np.ndarray[Any, Any]) -> None:
        """Hand arrays of `take` back; nobody may use them afterwards."""
        for array in arrays:
            memory = array.base
            assert memory is not None
            self._free.setdefault(memory.nbytes, []).append(memory)

    def __deepcopy__(self, memo: dict[int, Any]) -> Workspace:
        return Workspace()  # a copied model has memory of its own

    def __getstate__(self) -> dict[str, Any]:
        return {"_free": {}}


class _Side:
    """One side (0: users, 1: items) of one relation: its neighbours, its chosen rows and its layers.

    Without chosen rows all layers are whole.
    """

    def __init__(self, operator: Operator, number: int, rows: Tensor | None) -> None:
        self.lists = operator.lists[number]
        self.pointers, self.indices = self.lists.pointers, self.lists.indices
        self.send, self.receive = operator.send[number], operator.receive[number]
        self.count = len(self.send)
        self.units: list[Array] = []
        self.inverses: list[Array] = []
        self.is_whole = rows is None
        if rows is None:
            self.chosen = np.empty(0, np.int64)
            return
        self.rows = rows.numpy()  # (N,) may repeat
        self.position = np.full(self.count, -1, np.int32)
        self.position[self.rows] = 0
        self.chosen = np.flatnonzero(self.position == 0)  # (n,) each once
        self.position[self.chosen] = np.arange(len(self.chosen), dtype=np.int32)
        self.places = self.position[self.rows]  # (N,)

    @property
    def edges(self) -> int:
        return len(self.indices) + 2 * self.count  # finishing a row costs about as much as two edges

    def chosen_pointers(self) -> Array:
        """Return the running number of neighbours of the chosen rows: (n + 1,)."""
        degrees = self.pointers[self.chosen + 1] - self.pointers[self.chosen]
        return np.concatenate([[0], np.cumsum(degrees)])


class _Pass:
    """What all relations of one pass share."""

    def __init__(
        self,
        operators: Sequence[Operator],
        rows: Sequence[tuple[Tensor, Tensor]] | None,
        weights: Sequence[float],
        layer_norm: bool,
        row_dtype: str,
        width: int,
        space: Workspace,
    ) -> None:
        self.weights, self.num_layers = weights, len(weights) - 1
        self.layer_norm, self.space = layer_norm, space
        self.kernels = kernels.width_kernels(width)
        self.width, self.packed = width, row_dtype == "bfloat16"
        self.row_bytes = width * (2 if self.packed else 4)
        self.threads = torch.get_num_threads()
        self.borrowed: list[Array] = []
        self.sides: list[_Side] = []
        """Users of the first relation, its items, users of the second, ...: the other side of ``n`` is ``n ^ 1``."""
        for number, operator in enumerate(operators):
            chosen = (None, None) if rows is None else rows[number]
            self.sides += [_Side(operator, side, own) for side, own in enumerate(chosen)]
        self.edges = sum(side.edges for side in self.sides)
        self.cuts = [self._cuts(number) for number in (0, 1)]

    def _cuts(self, number: int) -> list[int]:
        """Return where the rows of each process begin on a side: the same ones for all relations, which add to them."""
        if processes.count() == 1:
            return [0, self.sides[number].count]
        pointers = reduce(np.add, (side.pointers for side in self.sides[number::2]))
        return kernels.balanced_chunks(pointers, processes.count())

    def __del__(self) -> None:
        # The layers serve every backward through this step; they are free when autograd forgets it.
        for side in self.sides:
            self.space.give(*side.units, *side.inverses)

    def rows(self, count: int) -> Array:
        """Return memory for rows that neighbours read."""
        return (
            self.space.take((count, self.width // 2), "uint32")
            if self.packed
            else self.space.take((count, self.width), "float32")
        )

    def pieces(self, side: _Side, alone: bool = False) -> int:
        """Return how many tasks a side makes in a round of all behaviors, or of its own ``alone``."""
        if self.threads == 1:
            return 1
        share = 0.5 if alone else side.edges / self.edges
        return max(1, round(_PIECES * self.threads * share)) * processes.count()

    def sums(self, out: Array, cuts: Array, add: bool = False) -> Array:
        """Return float32 memory for what the blocks before the last add up to; ``out`` itself where it can be that."""
        if len(cuts) == 2:
            return _NO_ROWS
        if out.dtype == np.float32 and not add:
            return out
        self.borrowed.append(self.space.take((len(out), self.width), "float32"))
        return self.borrowed[-1]

    def even(self, count: int) -> list[int]:
        """Return where to cut rows that all cost the same."""
        return even_chunks(count, self.threads)

    def stored(self, tables: Sequence[Array]) -> list[Array]:
        """Return float32 tables as neighbours read them."""
        if not self.packed:
            return list(tables)
        out = [self.rows(len(table)) for table in tables]
        tasks: list[Task] = []
        for table, packed in zip(tables, out, strict=True):
            tasks += tasks_of(self.kernels.pack, self.even(len(table)), (table, packed))
        self.run(tasks)
        return out

    def sources(self, first: Sequence[Array]) -> list[Array]:
        """Return each side's newest layer, layer 0 at first."""
        return [side.units[-1] if side.units else first[number % 2] for number, side in enumerate(self.sides)]

    def advance(self, sources: Sequence[Array], layer: int) -> None:
        """Compute the next layer of all sides and append it to their ``units``; the last has the chosen rows only."""
        tasks: list[Task] = []
        shared: list[list[int]] = []
        for number, side in enumerate(self.sides):
            other = self.sides[number ^ 1]
            last = layer == self.num_layers and not side.is_whole
            count = len(side.chosen) if last else side.count
            out = self.space.take((count, self.width), "float32") if last else self.rows(count)
            inverse = self.space.take((count if self.layer_norm else 0,), "float32")
            cuts = side.lists.blocks(self.row_bytes)
            if last:
                pointers = side.chosen_pointers()
                bounds = kernels.balanced_chunks(pointers, self.pieces(side))
                shared.append(kernels.balanced_chunks(pointers, processes.count()))
            else:
                bounds = side.lists.chunks(self.pieces(side))
                shared.append(self.cuts[number % 2])
            arguments = (
                cuts, side.indices, other.send, sources[number ^ 1], side.chosen, not last, side.receive,
                self.layer_norm, self.sums(out, cuts), out, inverse,
            )  # fmt: skip
            tasks += tasks_of(self.kernels.forward, _own(bounds, shared[-1]), arguments)
            side.units.append(out)
            side.inverses.append(inverse)
        self.run(tasks)
        processes.share_rows([side.units[-1] for side in self.sides], shared)
        if self.layer_norm and layer == self.num_layers:  # those of inner layers are asked for at one's own rows only
            processes.share_rows([side.inverses[-1] for side in self.sides], shared)

    def combined(self, tables: Sequence[Array]) -> list[Tensor]:
        """Return the weighted sum of all layers at the rows that were asked for: a tensor (N, D) per side."""
        tasks: list[Task] = []
        made = []
        for number, side in enumerate(self.sides):
            made.append(torch.empty(len(side.rows), self.width))
            layers = [tables[number % 2], *side.units]
            arguments = (self.kernels.gather, layers, side.rows, side.places, self.weights, made[-1].numpy())
            tasks += tasks_of(_combine, self.even(len(side.rows)), arguments)
        self.run(tasks)
        return made

    def collect(self, gradients: Sequence[Tensor]) -> tuple[list[Array], list[Array]]:
        """Spread gradients of `combined` over the chosen rows; return that, and what it is before the last finish.

        Lists of float32 (n, D) and of rows that neighbours read (n, ..) per side.
        """
        tasks: list[Task] = []
        bases, sources = [], []
        for side, gradient in zip(self.sides, gradients, strict=True):
            count = len(side.chosen)
            bases.append(self.space.take((count, self.width), "float32"))
            sources.append(self.rows(count))
            arguments = (
                gradient.contiguous().numpy(), side.places, np.float32(self.weights[-1]), side.receive[side.chosen],
                side.units[-1], side.inverses[-1], self.layer_norm, bases[-1], sources[-1],
            )  # fmt: skip
            tasks += tasks_of(self.kernels.collect, self.even(count), arguments)
        self.run(tasks)
        return bases, sources

    def below(self, number: int, source: Array, whole: bool, base: Array, layer: int, out: Array, add: bool) -> Any:
        """Return the arguments of the kernel that derives one side's layer ``layer``; layer 0 is the table.

        ``source`` is the gradient of the layer above on the other side, at its chosen rows only or ``whole``; ``base``
        the gradient that the combined output gives to the last layer, at the chosen rows.
        """
        side, other = self.sides[number], self.sides[number ^ 1]
        norm = self.layer_norm and layer > 0
        unit = side.units[layer - 1] if norm else _NO_ROWS.astype(source.dtype)
        inverse = side.inverses[layer - 1] if norm else _NO_SCALE
        scale_self = side.receive if layer > 0 and not self.layer_norm else _NO_SCALE
        share = np.float32(self.weights[layer] / self.weights[-1])
        cuts = side.lists.blocks(self.row_bytes)
        return (
            cuts, side.indices, source, _ALL if whole else other.position, side.send, base, share,
            side.position, unit, inverse, norm, scale_self, side.lists.most, add, self.sums(out, cuts, add), out,
        )  # fmt: skip

    def run(self, tasks: list[Task]) -> None:
        """Run a round, and hand back the memory of its sums."""
        run_tasks(tasks, self.threads)
        self.space.give(*self.borrowed)
        self.borrowed.clear()


def _own(bounds: Sequence[int], cuts: Sequence[int]) -> list[int]:
    """Return the boundaries of tasks between the rows where this process' own begin and end."""
    start, stop = cuts[processes.rank()], cuts[processes.rank() + 1]
    return [start, *(bound for bound in bounds if start < bound < stop), stop]


def _combine(
    start: int,
    stop: int,
    gather: Callable[..., None],
    layers: Sequence[Array],
    rows: Array,
    places: Array,
    weights: Sequence[float],
    out: Array,
) -> None:
    """Write the weighted sum of whole layers, of which the last is compact, to ``out[start:stop]``."""
    add = False
    for number, (layer, weight) in enumerate(zip(layers, weights, strict=True)):
        if weight != 0:
            gather(start, stop, layer, places if number == len(layers) - 1 else rows, np.float32(weight), add, out)
            add = True


class _Encode(torch.autograd.Function):
    """The pass at chosen rows; all relations share one gradient."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, run: _Pass, plain: Callable[[Tensor, Tensor], Pairs]) -> Any:
        tables = [table.detach().contiguous().numpy() for table in (users, items)]
        first = run.stored(tables)
        for layer in range(1, run.num_layers + 1):
            run.advance(run.sources(first), layer)
        if run.packed:
            run.space.give(*first)
        ctx.run, ctx.plain = run, plain
        ctx.save_for_backward(users, items)
        ctx.set_materialize_grads(False)
        return tuple(run.combined(tables))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of both tables."""
        if torch.is_grad_enabled():  # somebody derives the derivative: let autograd write it down
            return *derive_plainly(lambda *tables: flat(ctx.plain(*tables)), ctx.saved_tensors, gradients), None, None
        run: _Pass = ctx.run
        bases, sources = run.collect(
            [
                torch.zeros(len(side.rows), run.width) if gradient is None else gradient
                for side, gradient in zip(run.sides, gradients, strict=True)
            ]
        )
        made = [torch.empty(side.count, run.width) for side in run.sides[:2]]
        for layer in reversed(range(run.num_layers)):
            whole = layer < run.num_layers - 1
            below = [made[n % 2].numpy() if layer == 0 else run.rows(side.count) for n, side in enumerate(run.sides)]
            tasks: list[Task] = []
            for number, side in enumerate(run.sides):
                add = layer == 0 and number > 1  # relations share the tables' gradients, so there they do wait
                arguments = run.below(number, sources[number ^ 1], whole, bases[number], layer, below[number], add)
                alone = layer == 0
                bounds = _own(side.lists.chunks(run.pieces(side, alone)), run.cuts[number % 2])
                tasks += tasks_of(run.kernels.back, bounds, arguments)
                if alone and number % 2:
                    run.run(tasks)
                    tasks = []
            run.run(tasks)
            shared = below if layer else [table.numpy() for table in made]
            processes.share_rows(shared, [run.cuts[number % 2] for number in range(len(shared))])
            run.space.give(*sources)
            sources = below
        run.space.give(*bases)
        return *made, None, None


def flat(pairs: Pairs) -> list[Tensor]:
    """Return the tensors of pairs, one behind the other."""
    return [tensor for pair in pairs for tensor in pair]


def encode(
    operators: Sequence[Operator],
    users: Tensor,
    items: Tensor,
    at: Sequence[tuple[Tensor, Tensor]] | None,
    weights: Sequence[float],
    layer_norm: bool,
    row_dtype: str,
    space: Workspace,
    plain: Callable[[Tensor, Tensor], Pairs],
) -> Pairs:
    """Return ``sum over l of weights[l] * layer l`` of every relation, at chosen rows.

    Parameters
    ----------
    operators : sequence of Operator
        K relations over the same nodes.
    users, items : float32 tensor (U, D), (I, D)
        Layer 0 of all of them.
    at : sequence of (int64 tensor (N,), int64 tensor (M,)), optional
        Rows per relation; they may repeat. Without them all rows, not recorded for autograd.
    weights : sequence of float
        L + 1 factors, L at least 1, the last not 0.
    layer_norm : bool
        Divide every row of layers 1..L by its Euclidean norm.
    row_dtype : {"float32", "bfloat16"}
        What neighbours read.
    space : Workspace
    plain : callable
        The same function of both tables as autograd can record it, for derivatives of derivatives.

    Returns
    -------
    list of (Tensor (N, D), Tensor (M, D))
    """
    if at is not None:
        run = _Pass(operators, at, weights, layer_norm, row_dtype, users.shape[1], space)
        flat = _Encode.apply(users, items, run, plain)
        return list(zip(flat[::2], flat[1::2], strict=True))
    run = _Pass(operators, None, weights, layer_norm, "float32", users.shape[1], space)
    tables = [table.detach().contiguous() for table in (users, items)]
    made = [tables[number % 2] * weights[0] for number in range(len(run.sides))]
    for layer in range(1, run.num_layers + 1):
        run.advance(run.sources([table.numpy() for table in tables]), layer)
        if weights[layer] != 0:
            for total, side in zip(made, run.sides, strict=True):
                total.add_(torch.from_numpy(side.units[-1]), alpha=weights[layer])
    return list(zip(made[::2], made[1::2], strict=True))
