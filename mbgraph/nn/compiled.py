"""The hand-written pass in compiled kernels: all behaviors at once, float32 tables on the CPU.

A round is a list of tasks that do not wait for each other: every layer is one, over all behaviors and both sides, so
that threads meet as seldom as they can. What surrounds the layers (rows picked and summed, gradients spread) is rounds
too, because through torch it costs a third of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbgraph.nn import kernels
from mbgraph.nn.propagation import Relation
from mbgraph.parallel import Task, even_chunks, run_tasks, tasks_of

__all__ = ["EncodeRowsCompiled", "Workspace", "encode_all_compiled"]

_LINE = 64  # bytes of a cache line
_PIECES = 4  # tasks of a round per thread: more share out better, fewer read the same source less often
_NO_ROWS = np.empty((0, 0), np.float32)
_NO_SCALE = np.empty(0, np.float32)
_ALL = np.empty(0, np.int32)

Array = np.ndarray[Any, Any]


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
    """One side (users or items) of one behavior: its adjacency, its chosen rows and its layers.

    Without chosen rows all layers are whole.
    """

    def __init__(self, relation: Relation, side: str, rows: Tensor | None) -> None:
        self.relation, self.side = relation, side
        self.pointers, self.indices = relation.neighbors(side)
        self.most = relation.most_neighbors(side)
        scale = relation.user_scale if side == "user" else relation.item_scale
        self.scale = scale.numpy().reshape(-1)
        self.units: list[Array] = []
        self.inverses: list[Array] = []
        self.is_whole = rows is None
        if rows is None:
            self.chosen = np.empty(0, np.int64)
            return
        self.rows = rows.numpy()  # (N,) may repeat
        self.position = np.full(len(self.scale), -1, np.int32)
        self.position[self.rows] = 0
        self.chosen = np.flatnonzero(self.position == 0)  # (n,) each once
        self.position[self.chosen] = np.arange(len(self.chosen), dtype=np.int32)
        self.places = self.position[self.rows]  # (N,)

    @property
    def edges(self) -> int:
        return len(self.indices) + 2 * len(self.scale)  # finishing a row costs about as much as two edges

    def chosen_pointers(self) -> Array:
        """Return the running number of neighbours of the chosen rows: (n + 1,)."""
        degrees = self.pointers[self.chosen + 1] - self.pointers[self.chosen]
        return np.concatenate([[0], np.cumsum(degrees)])


class _Pass:
    """What all behaviors of one compiled pass share."""

    def __init__(
        self,
        relations: Sequence[Relation],
        rows: Sequence[tuple[Tensor, Tensor]] | None,
        num_layers: int,
        layer_norm: bool,
        weight: float,
        row_dtype: str,
        width: int,
        space: Workspace,
    ) -> None:
        self.num_layers, self.layer_norm, self.weight, self.space = num_layers, layer_norm, weight, space
        self.kernels = kernels.width_kernels(width)
        self.width, self.packed = width, row_dtype == "bfloat16"
        self.row_bytes = width * (2 if self.packed else 4)
        self.threads = torch.get_num_threads()
        self.borrowed: list[Array] = []
        self.sides: list[_Side] = []
        """Users of the first behavior, its items, users of the second, ...: the other side of ``n`` is ``n ^ 1``."""
        for number, relation in enumerate(relations):
            chosen = (None, None) if rows is None else rows[number]
            self.sides += [_Side(relation, side, own) for side, own in zip(("user", "item"), chosen, strict=True)]
        self.edges = sum(side.edges for side in self.sides)

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
        return max(1, round(_PIECES * self.threads * share))

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
        for number, side in enumerate(self.sides):
            other = self.sides[number ^ 1]
            last = layer == self.num_layers and not side.is_whole
            count = len(side.chosen) if last else len(side.scale)
            out = self.space.take((count, self.width), "float32") if last else self.rows(count)
            inverse = self.space.take((count if self.layer_norm else 0,), "float32")
            cuts = side.relation.blocks(side.side, self.row_bytes)
            if last:
                bounds = kernels.balanced_chunks(side.chosen_pointers(), self.pieces(side))
            else:
                bounds = side.relation.chunks(side.side, self.pieces(side))
            arguments = (
                cuts, side.indices, other.scale, sources[number ^ 1], side.chosen, not last, side.scale,
                self.layer_norm, self.sums(out, cuts), out, inverse,
            )  # fmt: skip
            tasks += tasks_of(self.kernels.forward, bounds, arguments)
            side.units.append(out)
            side.inverses.append(inverse)
        self.run(tasks)

    def combined(self, tables: Sequence[Array]) -> list[Tensor]:
        """Return the weighted sum of all layers at the rows that were asked for: a tensor (N, D) per side."""
        tasks: list[Task] = []
        made = []
        for number, side in enumerate(self.sides):
            made.append(torch.empty(len(side.rows), self.width))
            *whole, last = side.units
            arguments = (self.kernels.gather, tables[number % 2], whole, last, side.rows, side.places, self.weight)
            tasks += tasks_of(_combine, self.even(len(side.rows)), (*arguments, made[-1].numpy()))
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
                gradient.contiguous().numpy(), side.places, np.float32(self.weight), side.scale[side.chosen],
                side.units[-1], side.inverses[-1], self.layer_norm, bases[-1], sources[-1],
            )  # fmt: skip
            tasks += tasks_of(self.kernels.collect, self.even(count), arguments)
        self.run(tasks)
        return bases, sources

    def retreat(self, number: int, source: Array, whole: bool, base: Array, layer: int, out: Array, add: bool) -> Any:
        """Return the arguments of the kernel that derives one side's layer ``layer``; layer 0 is the table.

        ``source`` is the gradient of the layer above on the other side, at its chosen rows only or ``whole``.
        """
        side, other = self.sides[number], self.sides[number ^ 1]
        norm = self.layer_norm and layer > 0
        unit = side.units[layer - 1] if norm else _NO_ROWS.astype(source.dtype)
        inverse = side.inverses[layer - 1] if norm else _NO_SCALE
        scale_self = side.scale if layer > 0 and not self.layer_norm else _NO_SCALE
        cuts = side.relation.blocks(side.side, self.row_bytes)
        return (
            cuts, side.indices, source, _ALL if whole else other.position, side.scale, base,
            side.position, unit, inverse, norm, scale_self, side.most, add, self.sums(out, cuts, add), out,
        )  # fmt: skip

    def run(self, tasks: list[Task]) -> None:
        """Run a round, and hand back the memory of its sums."""
        run_tasks(tasks, self.threads)
        self.space.give(*self.borrowed)
        self.borrowed.clear()


def _combine(
    start: int,
    stop: int,
    gather: Callable[..., None],
    table: Array,
    whole: Sequence[Array],
    last: Array,
    rows: Array,
    places: Array,
    weight: float,
    out: Array,
) -> None:
    """Write the weighted sum of layer 0, the whole layers and the last one to ``out[start:stop]``."""
    gather(start, stop, table, rows, False, out)
    for layer in whole:
        gather(start, stop, layer, rows, True, out)
    gather(start, stop, last, places, True, out)
    if weight != 1:
        out[start:stop] *= np.float32(weight)


class EncodeRowsCompiled(torch.autograd.Function):
    """The pass; all behaviors share one gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        items: Tensor,
        user_rows: Sequence[Tensor],
        item_rows: Sequence[Tensor],
        relations: Sequence[Relation],
        num_layers: int,
        layer_norm: bool,
        weight: float,
        row_dtype: str,
        workspace: Workspace,
    ) -> tuple[Tensor, ...]:
        """See `mbgraph.nn.rows.encode_rows`; K x (users, items), flat."""
        rows = list(zip(user_rows, item_rows, strict=True))
        run = _Pass(relations, rows, num_layers, layer_norm, weight, row_dtype, users.shape[1], workspace)
        tables = [table.detach().contiguous().numpy() for table in (users, items)]
        first = run.stored(tables)
        for layer in range(1, num_layers + 1):
            run.advance(run.sources(first), layer)
        if run.packed:
            workspace.give(*first)
        ctx.run = run
        return tuple(run.combined(tables))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of both tables."""
        run: _Pass = ctx.run
        bases, sources = run.collect(gradients)
        made = [torch.empty(len(side.scale), run.width) for side in run.sides[:2]]
        for layer in reversed(range(run.num_layers)):
            whole = layer < run.num_layers - 1
            below = [
                made[n % 2].numpy() if layer == 0 else run.rows(len(side.scale)) for n, side in enumerate(run.sides)
            ]
            tasks: list[Task] = []
            for number, side in enumerate(run.sides):
                add = layer == 0 and number > 1  # behaviors share the tables' gradients, so there they do wait
                arguments = run.retreat(number, sources[number ^ 1], whole, bases[number], layer, below[number], add)
                alone = layer == 0
                tasks += tasks_of(run.kernels.back, side.relation.chunks(side.side, run.pieces(side, alone)), arguments)
                if alone and number % 2:
                    run.run(tasks)
                    tasks = []
            run.run(tasks)
            run.space.give(*sources)
            sources = below
        run.space.give(*bases)
        return *made, *([None] * 8)


def encode_all_compiled(
    relations: Sequence[Relation],
    users: Tensor,
    items: Tensor,
    num_layers: int,
    layer_norm: bool,
    weight: float,
    space: Workspace,
) -> list[tuple[Tensor, Tensor]]:
    """See `mbgraph.nn.rows.encode_all`."""
    run = _Pass(relations, None, num_layers, layer_norm, weight, "float32", users.shape[1], space)
    tables = [table.detach().contiguous() for table in (users, items)]
    made = [tables[number % 2].clone() for number in range(len(run.sides))]
    for layer in range(1, num_layers + 1):
        run.advance(run.sources([table.numpy() for table in tables]), layer)
        for total, side in zip(made, run.sides, strict=True):
            total.add_(torch.from_numpy(side.units[-1]))
    for total in made:
        total.mul_(weight)
    return list(zip(made[::2], made[1::2], strict=True))
