"""All layers of several behaviors, combined, at chosen rows: forward and backward written by hand.

Through autograd every layer costs several table-sized temporaries and every gathered block of rows a dense gradient. By
hand a layer is one neighbour sum and in-place arithmetic. Two passes do the same: `EncodeRows` in DGL and torch, for
any device, and `EncodeRowsCompiled` with the kernels of `mbgraph.nn.kernels`, which also computes the last layer for
the chosen rows only, forward and backward. Under layer normalisation the receiver's degree factor cancels, so neither
applies it.

Rows may be kept in bfloat16 (``row_dtype``): what neighbours read is then half as long, layers and gradients alike,
while sums, norms, parameters and the result stay float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.nn import kernels
from mbgraph.nn.propagation import Relation
from mbgraph.parallel import Task, run_chunks, run_tasks, tasks_of

__all__ = [
    "ROW_DTYPES",
    "EncodeRows",
    "EncodeRowsCompiled",
    "Workspace",
    "check_row_dtype",
    "encode_all",
    "encode_rows",
]

ROW_DTYPES = ("float32", "bfloat16")
_MANY = 10_000  # rows: fewer are packed before another thread wakes
_LINE = 64  # bytes of a cache line
TINY = 1e-12  # rows shorter than this count as zero, as in torch.nn.functional.normalize
_NO_ROWS = np.empty((0, 0), np.float32)
_NO_SCALE = np.empty(0, np.float32)
_ALL = np.empty(0, np.int32)


def check_row_dtype(name: str, width: int) -> None:
    """Raise for an unknown row type, or a width that cannot be packed."""
    if name not in ROW_DTYPES:
        raise UnknownNameError("row dtype", name, ROW_DTYPES)
    if name == "bfloat16" and width % 2:
        raise UsageError(f"row_dtype=bfloat16 needs an even embedding_dim, got {width}", "choose an even one")


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


def encode_rows(
    relations: Sequence[Relation],
    users: Tensor,
    items: Tensor,
    user_rows: Sequence[Tensor],
    item_rows: Sequence[Tensor],
    num_layers: int,
    layer_norm: bool,
    weight: float,
    row_dtype: str = "float32",
    workspace: Workspace | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Return ``weight * (layer 0 + ... + layer L)`` at rows of both sides per relation, differentiable once.

    Shapes: (U, D), (I, D) tables, K x (N,), K x (M,) rows -> K x ((N, D), (M, D)). Rows may repeat.
    """
    if _is_compiled(relations, users, num_layers):
        space = Workspace() if workspace is None else workspace
        flat = EncodeRowsCompiled.apply(
            users, items, user_rows, item_rows, relations, num_layers, layer_norm, weight, row_dtype, space
        )
        return list(zip(flat[::2], flat[1::2], strict=True))
    return [
        EncodeRows.apply(users, items, *rows, relation, num_layers, layer_norm, weight, row_dtype)
        for relation, *rows in zip(relations, user_rows, item_rows, strict=True)
    ]


@torch.no_grad()
def encode_all(
    relations: Sequence[Relation],
    users: Tensor,
    items: Tensor,
    num_layers: int,
    layer_norm: bool,
    weight: float,
    workspace: Workspace | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Return ``weight * (layer 0 + ... + layer L)`` of all rows per relation, in float32, for nobody to derive.

    Shapes: (U, D), (I, D) tables -> K x ((U, D), (I, D)).
    """
    if not _is_compiled(relations, users, num_layers):
        every = [torch.arange(len(table), device=table.device) for table in (users, items)]
        options = (num_layers, layer_norm, weight, "float32")
        return [EncodeRows.apply(users, items, *every, relation, *options) for relation in relations]
    space = Workspace() if workspace is None else workspace
    run = _Pass(num_layers, layer_norm, weight, "float32", users.shape[1], space)
    tables = [table.detach().contiguous() for table in (users, items)]
    made = []
    for relation in relations:
        user, item = (
            _Side(relation, side, table.numpy(), None) for side, table in zip(("user", "item"), tables, strict=True)
        )
        run.behaviors.append((user, item))
        made.append((tables[0].clone(), tables[1].clone()))
    for layer in range(1, num_layers + 1):
        tasks: list[Task] = []
        for user, item in run.behaviors:
            user_source, item_source = [t.numpy() for t in tables] if layer == 1 else (user.units[-1], item.units[-1])
            tasks += run.advance(user, item, item_source, layer) + run.advance(item, user, user_source, layer)
        run.run(tasks)
        for sides, sums in zip(run.behaviors, made, strict=True):
            for side, total in zip(sides, sums, strict=True):
                total.add_(torch.from_numpy(side.units[-1]))
    return [(total_users.mul_(weight), total_items.mul_(weight)) for total_users, total_items in made]


def _is_compiled(relations: Sequence[Relation], users: Tensor, num_layers: int) -> bool:
    return (
        kernels.available
        and all(relation.backend == "auto" for relation in relations)
        and users.device.type == "cpu"
        and users.dtype == torch.float32
        and num_layers > 0
    )


class EncodeRows(torch.autograd.Function):
    """The pass in DGL (or torch.sparse) and in-place torch arithmetic."""

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        items: Tensor,
        user_rows: Tensor,
        item_rows: Tensor,
        relation: Relation,
        num_layers: int,
        layer_norm: bool,
        weight: float,
        row_dtype: str,
    ) -> tuple[Tensor, Tensor]:
        """See `encode_rows`."""
        rounded = _rounding(row_dtype)
        user_scale, item_scale = relation.user_scale.to(users), relation.item_scale.to(items)
        user_sum, item_sum = users.index_select(0, user_rows), items.index_select(0, item_rows)
        kept: list[Tensor] = []
        for layer in range(1, num_layers + 1):
            next_users = relation.to_users(rounded(items) * item_scale)  # (U, D)
            next_items = relation.to_items(rounded(users) * user_scale)  # (I, D)
            if layer_norm:
                kept += [next_users, _normalize_(next_users), next_items, _normalize_(next_items)]
            else:
                next_users.mul_(user_scale)
                next_items.mul_(item_scale)
            if layer < num_layers:  # neighbours do not read the last layer
                next_users, next_items = rounded(next_users), rounded(next_items)
            users, items = next_users, next_items
            user_sum += users.index_select(0, user_rows)
            item_sum += items.index_select(0, item_rows)
        ctx.save_for_backward(user_rows, item_rows, *kept)
        ctx.relation, ctx.num_layers, ctx.layer_norm, ctx.weight = relation, num_layers, layer_norm, weight
        ctx.rounded = rounded
        return user_sum.mul_(weight), item_sum.mul_(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of both tables."""
        user_rows, item_rows, *kept = ctx.saved_tensors
        relation = ctx.relation
        user_gradient, item_gradient = gradients
        user_scale, item_scale = relation.user_scale.to(user_gradient), relation.item_scale.to(item_gradient)
        width = user_gradient.shape[1]
        # The combined output reaches every layer with the same gradient.
        out_users = user_gradient.new_zeros((relation.num_users, width))
        out_items = item_gradient.new_zeros((relation.num_items, width))
        out_users.index_add_(0, user_rows, user_gradient * ctx.weight)
        out_items.index_add_(0, item_rows, item_gradient * ctx.weight)
        users, items = out_users, out_items  # gradient at the layer in hand
        for layer in reversed(range(ctx.num_layers)):
            if ctx.layer_norm:
                user_unit, user_inverse, item_unit, item_inverse = kept[4 * layer : 4 * layer + 4]
                users = _normalize_backward(users, user_unit, user_inverse)
                items = _normalize_backward(items, item_unit, item_inverse)
            else:
                users, items = users * user_scale, items * item_scale
            users, items = ctx.rounded(users), ctx.rounded(items)
            below_items = relation.to_items(users).mul_(item_scale).add_(out_items)
            below_users = relation.to_users(items).mul_(user_scale).add_(out_users)
            users, items = below_users, below_items
        return users, items, None, None, None, None, None, None, None


def _rounding(row_dtype: str) -> Any:
    """Return what storing rows in a type does to their numbers."""
    return (lambda rows: rows.bfloat16().float()) if row_dtype == "bfloat16" else (lambda rows: rows)


def _normalize_(rows: Tensor) -> Tensor:
    """Normalise rows in place and return the inverse norms (N, 1), 0 for zero rows."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    inverse = torch.where(norms > TINY, norms.reciprocal(), torch.zeros_like(norms))
    rows.mul_(inverse)
    return inverse


def _normalize_backward(gradient: Tensor, unit: Tensor, inverse: Tensor) -> Tensor:
    """Gradient before ``y / |y|``: project out the direction of the row, divide by its norm."""
    along = torch.linalg.vecdot(gradient, unit).unsqueeze(1)  # (N, 1)
    return torch.addcmul(gradient, unit, along, value=-1).mul_(inverse)


class _Side:
    """One side (users or items) of one behavior in a compiled pass: its adjacency, its chosen rows and its layers.

    Without chosen rows all layers are whole.
    """

    def __init__(self, relation: Relation, side: str, table: np.ndarray[Any, Any], rows: Tensor | None) -> None:
        self.relation, self.side = relation, side
        pointers, self.indices = relation.neighbors(side)
        self.most = int(np.diff(pointers).max(initial=0))
        scale = relation.user_scale if side == "user" else relation.item_scale
        self.scale = scale.numpy().reshape(-1)
        self.units: list[np.ndarray[Any, Any]] = []
        self.inverses: list[np.ndarray[Any, Any]] = []
        self.is_whole = rows is None
        if rows is None:
            self.rows = np.empty(0, np.int64)
            return
        chosen, self.expand = torch.unique(rows, return_inverse=True)
        self.rows = chosen.numpy()
        self.position = np.full(len(self.scale), -1, np.int32)
        self.position[self.rows] = np.arange(len(self.rows), dtype=np.int32)
        self.total = table[self.rows]  # (n, D)


class _Pass:
    """What all behaviors of one compiled pass share."""

    def __init__(
        self, num_layers: int, layer_norm: bool, weight: float, row_dtype: str, width: int, space: Workspace
    ) -> None:
        self.num_layers, self.layer_norm, self.weight, self.space = num_layers, layer_norm, weight, space
        self.forward, self.back, self.pack, self.gather = kernels.width_kernels(width)
        self.width, self.packed = width, row_dtype == "bfloat16"
        self.row_bytes = width * (2 if self.packed else 4)
        self.threads = torch.get_num_threads()
        self.behaviors: list[tuple[_Side, _Side]] = []
        self.borrowed: list[np.ndarray[Any, Any]] = []

    def __del__(self) -> None:
        # The layers serve every backward through this step; they are free when autograd forgets it.
        for side in (side for sides in self.behaviors for side in sides):
            self.space.give(*side.units, *side.inverses)

    def rows(self, count: int) -> np.ndarray[Any, Any]:
        """Return memory for rows that neighbours read."""
        return (
            self.space.take((count, self.width // 2), "uint32")
            if self.packed
            else self.space.take((count, self.width), "float32")
        )

    def sums(self, out: np.ndarray[Any, Any], cuts: np.ndarray[Any, Any], add: bool = False) -> np.ndarray[Any, Any]:
        """Return float32 memory for what the blocks before the last add up to; ``out`` itself where it can be that."""
        if len(cuts) == 2:
            return _NO_ROWS
        if out.dtype == np.float32 and not add:
            return out
        self.borrowed.append(self.space.take((len(out), self.width), "float32"))
        return self.borrowed[-1]

    def stored(self, table: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return float32 rows as neighbours read them."""
        if not self.packed:
            return table
        out = self.rows(len(table))
        threads = self.threads if len(table) > _MANY else 1
        run_chunks(self.pack, kernels.even_chunks(len(table), threads), (table, out), threads)
        return out

    def advance(self, side: _Side, other: _Side, source: np.ndarray[Any, Any], layer: int) -> list[Task]:
        """Return the work on a side's next layer, from the other side's ``source``.

        The layer is appended to ``side.units``; the last one has the chosen rows only.
        """
        last = layer == self.num_layers and not side.is_whole
        count = len(side.rows) if last else len(side.scale)
        out = self.space.take((count, self.width), "float32") if last else self.rows(count)
        inverse = self.space.take((count if self.layer_norm else 0,), "float32")
        side.units.append(out)
        side.inverses.append(inverse)
        cuts = side.relation.blocks(side.side, self.row_bytes)
        bounds = kernels.even_chunks(count, 4 * self.threads) if last else self.chunks(side, cuts)
        arguments = (
            cuts, side.indices, other.scale, source, side.rows, not last, side.scale, self.layer_norm,
            self.sums(out, cuts), out, inverse,
        )  # fmt: skip
        return tasks_of(self.forward, bounds, arguments)

    def add_up(self, side: _Side) -> list[Task]:
        """Return the work on adding a side's newest layer, a whole one, to the sum at the chosen rows."""
        return tasks_of(self.gather, [0, len(side.rows)], (side.units[-1], side.rows, side.total))

    def retreat(
        self,
        side: _Side,
        source: np.ndarray[Any, Any],
        position: np.ndarray[Any, Any],
        base: np.ndarray[Any, Any],
        layer: int,
        out: np.ndarray[Any, Any],
        add: bool,
    ) -> list[Task]:
        """Return the work on the gradient of one side before layer ``layer`` was finished; layer 0 is the table."""
        norm = self.layer_norm and layer > 0
        unit = side.units[layer - 1] if norm else _NO_ROWS.astype(source.dtype)
        inverse = side.inverses[layer - 1] if norm else _NO_SCALE
        scale_self = side.scale if layer > 0 and not self.layer_norm else _NO_SCALE
        ones = np.ones(len(source), np.float32)
        cuts = side.relation.blocks(side.side, self.row_bytes)
        arguments = (
            cuts, side.indices, source, ones, position, side.scale, base, side.position, unit, inverse, norm,
            scale_self, side.most, add, self.sums(out, cuts, add), out,
        )  # fmt: skip
        return tasks_of(self.back, self.chunks(side, cuts), arguments)

    def chunks(self, side: _Side, cuts: np.ndarray[Any, Any]) -> list[int]:
        """Return where to cut a side's rows: few pieces where each reads the source block by block."""
        if self.threads == 1:
            return [0, len(side.scale)]
        return side.relation.chunks(side.side, (2 if len(cuts) > 2 else 4) * self.threads)

    def run(self, tasks: list[Task]) -> None:
        """Run tasks that do not wait for each other, and hand back the memory of their sums."""
        run_tasks(tasks, self.threads)
        self.space.give(*self.borrowed)
        self.borrowed.clear()


class EncodeRowsCompiled(torch.autograd.Function):
    """The pass in compiled kernels, for float32 tables on the CPU; all behaviors share one gradient."""

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
        """See `encode_rows`; K x (users, items), flat."""
        run = _Pass(num_layers, layer_norm, weight, row_dtype, users.shape[1], workspace)
        tables = [table.detach().contiguous().numpy() for table in (users, items)]
        first = [run.stored(table) for table in tables]
        for relation, *rows in zip(relations, user_rows, item_rows, strict=True):
            user, item = (
                _Side(relation, side, table, chosen)
                for side, table, chosen in zip(("user", "item"), tables, rows, strict=True)
            )
            run.behaviors.append((user, item))
        for layer in range(1, num_layers + 1):
            tasks: list[Task] = []
            for user, item in run.behaviors:  # behaviors do not wait for each other
                user_source, item_source = first if layer == 1 else (user.units[-1], item.units[-1])
                if layer > 1:
                    tasks += run.add_up(user) + run.add_up(item)
                tasks += run.advance(user, item, item_source, layer)
                tasks += run.advance(item, user, user_source, layer)
            run.run(tasks)
        if run.packed:
            workspace.give(*first)
        out = []
        for side in itertools.chain(*run.behaviors):
            side.total += side.units[-1]
            out.append(torch.from_numpy(side.total).mul_(weight).index_select(0, side.expand))
            del side.total
        ctx.run = run
        return tuple(out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of both tables."""
        run: _Pass = ctx.run
        made = [torch.empty(len(side.scale), run.width) for side in run.behaviors[0]]
        tables = [table.numpy() for table in made]
        bases, sources = [], []
        for number, side in enumerate(itertools.chain(*run.behaviors)):
            compact = gradients[number].new_zeros((len(side.rows), run.width))
            compact.index_add_(0, side.expand, gradients[number] * run.weight)  # (n, D)
            bases.append(compact.numpy())
            if run.layer_norm:
                unit, inverse = torch.from_numpy(side.units[-1]), torch.from_numpy(side.inverses[-1]).unsqueeze(1)
                finished = _normalize_backward(compact, unit, inverse).numpy()
            else:
                finished = bases[-1] * side.scale[side.rows, None]
            sources.append(run.stored(finished))
        positions = [side.position for side in itertools.chain(*run.behaviors)]
        for layer in reversed(range(run.num_layers)):
            tasks: list[Task] = []
            below: list[np.ndarray[Any, Any]] = []
            for number, side in enumerate(itertools.chain(*run.behaviors)):
                other = number ^ 1
                out = tables[number % 2] if layer == 0 else run.rows(len(side.scale))
                below.append(out)
                add = layer == 0 and number > 1  # behaviors share the table's gradient, so here they do wait
                tasks += run.retreat(side, sources[other], positions[other], bases[number], layer, out, add)
                if layer == 0 and number % 2:
                    run.run(tasks)
                    tasks = []
            if tasks:
                run.run(tasks)
            if run.packed or layer < run.num_layers - 1:  # otherwise not the workspace's
                run.space.give(*sources)
            sources, positions = below, [_ALL] * len(below)
        return *made, *([None] * 8)
