"""One behavior as an operator between user rows and item rows: the only place where a sparse matrix meets a table.

Both directions are needed in every layer, and the derivative of one direction is the other direction, so a `Relation`
holds one edge list and views of it. Degree factors live on node rows, never on edges: the kernel is ``copy_u`` +
``sum`` and no edge-sized float tensor exists unless a caller brings weights.
"""

from __future__ import annotations

import itertools
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbgraph import keys as key_sets
from mbgraph import processes
from mbgraph._dgl import import_dgl
from mbgraph._kernels import Adjacency, BlockMatrix, Operator
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.random import RNGLike, as_generator

__all__ = ["BACKENDS", "NORMS", "Relation"]

BACKENDS = ("auto", "dgl", "torch", "triton")
NORMS = ("sym", "left", "right", "none")
_SIDES = ("user", "item")
_EDGES_AT_A_TIME = 2**20


class Relation:
    r"""The pairs of one behavior as a normalised adjacency between users and items.

    Parameters
    ----------
    users, items : int64 tensor or array (E,)
        Distinct pairs of row numbers.
    num_users, num_items : int
    norm : {"sym", "left", "right", "none"}
        ``sym``: :math:`D^{-1/2} A D^{-1/2}` (LightGCN); ``left``: :math:`D^{-1} A`, a mean over neighbours; ``right``:
        :math:`A D^{-1}`; ``none``: :math:`A`. Degrees are those of this relation; nodes without an edge get zeros.
    time : tensor or array (E,), optional
        Time of each pair, whatever the clock.
    backend : {"auto", "dgl", "torch", "triton"}
        ``"dgl"`` runs DGL's CPU kernel. ``"torch"`` runs a compressed sparse row product: the path for CUDA (the DGL
        wheel of PyPI has no CUDA kernels) and the oracle of the tests. ``"auto"`` takes dgl on CPU, torch elsewhere,
        and lets `mbgraph.nn.propagate` use compiled kernels. ``"triton"`` is ``"auto"``, but on CUDA `propagate` uses
        kernels in Triton where that is installed.

    Raises
    ------
    UnknownNameError
        For an unknown norm or backend.
    UsageError
        If a row number is negative or beyond its count, or columns differ in length.
    """

    def __init__(
        self,
        users: Any,
        items: Any,
        num_users: int,
        num_items: int,
        *,
        norm: str = "sym",
        time: Any = None,
        backend: str = "auto",
    ) -> None:
        if backend not in BACKENDS:
            raise UnknownNameError("propagation backend", backend, BACKENDS)
        if norm not in NORMS:
            raise UnknownNameError("normalisation", norm, NORMS)
        self.users, self.items = _rows("user", users, num_users), _rows("item", items, num_items)
        self.time = None if time is None else torch.as_tensor(time).cpu()
        lengths = {len(column) for column in (self.users, self.items, self.time) if column is not None}
        if len(lengths) > 1:
            raise UsageError(f"users, items and times of a relation have different lengths: {sorted(lengths)}")
        self.num_users, self.num_items = int(num_users), int(num_items)
        self.norm, self.backend = norm, backend
        self._degrees = tuple(
            torch.bincount(rows, minlength=count)
            for rows, count in ((self.users, self.num_users), (self.items, self.num_items))
        )
        send = {"sym": -0.5, "right": -1.0}.get(norm, 0.0)
        receive = {"sym": -0.5, "left": -1.0}.get(norm, 0.0)
        self._send = tuple(_factor(degree, send) for degree in self._degrees)
        self._receive = tuple(_factor(degree, receive) for degree in self._degrees)
        self.__setstate__({})

    def __getstate__(self) -> dict[str, Any]:
        # views and the number are made again: DGL cannot copy the views its kernel likes best
        return {name: value for name, value in vars(self).items() if name not in ("_cache", "handle")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._cache: dict[Any, Any] = {}
        self.handle = next(_numbers)  # by which the operator of torch finds this relation in this process
        _alive[self.handle] = self

    @property
    def num_edges(self) -> int:
        """Number of pairs."""
        return len(self.users)

    def __repr__(self) -> str:
        return (
            f"Relation(users={self.num_users}, items={self.num_items}, edges={self.num_edges}, "
            f"norm={self.norm!r}, backend={self.backend!r})"
        )

    def replace(self, **changes: Any) -> Relation:
        """Return the same pairs with another ``norm``, ``backend`` or number of nodes."""
        if "time" not in changes and all(getattr(self, name) == value for name, value in changes.items()):
            return self  # with the lists that were made of it: an encoder and its model need them once
        options = {"norm": self.norm, "time": self.time, "backend": self.backend, **changes}
        sizes = (options.pop("num_users", self.num_users), options.pop("num_items", self.num_items))
        return Relation(self.users, self.items, *sizes, **options)

    # --- sums -------------------------------------------------------------------------------------------------------

    def neighbor_sum(self, rows: Tensor, to: str) -> Tensor:
        """Sum neighbour rows without any factor, differentiable any number of times.

        Shapes: (I, D) -> (U, D) for ``to="user"``, (U, D) -> (I, D) for ``to="item"``. Nodes without an edge get zeros.
        """
        return _neighbor_sum(rows, self.handle, _side(to) == 0)

    def propagate(self, rows: Tensor, to: str) -> Tensor:
        """Return the normalised sum of neighbour rows; shapes as `neighbor_sum`."""
        self._check_rows(rows, to)
        other = "item" if to == "user" else "user"
        summed = self.neighbor_sum(rows * self.send(other, rows.device, rows.dtype), to)
        return summed * self.receive(to, rows.device, rows.dtype)

    def weighted_sum(self, rows: Tensor, weights: Tensor, to: str) -> Tensor:
        """Sum neighbour rows times a weight per pair, for weights that learn.

        Shapes: (I, D), (E,) -> (U, D) for ``to="user"``; (U, D), (E,) -> (I, D) for ``to="item"``. ``weights`` are in
        the order of the relation's pairs. Differentiable once in both, in memory of E + the tables: no (E, D) array.
        """
        if weights.shape != (self.num_edges,):
            raise UsageError(f"weighted_sum needs {self.num_edges} weights, one per pair, not {tuple(weights.shape)}")
        self._check_rows(rows, to)
        return _WeightedSum.apply(rows, weights, self, to)

    def degree(self, side: str) -> Tensor:
        """Return the number of neighbours of every node of a side: int64 (U,) or (I,)."""
        return self._degrees[_side(side)]

    def send(self, side: str, device: Any = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the factor on a node's row when neighbours read it: (U, 1) or (I, 1)."""
        return self._moved("send", self._send[_side(side)], side, device, dtype)

    def receive(self, side: str, device: Any = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the factor on the sum of what a node reads: (U, 1) or (I, 1)."""
        return self._moved("receive", self._receive[_side(side)], side, device, dtype)

    def presence(self, side: str, device: Any = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        """Return 1 for nodes with an edge, 0 for others: (U,) or (I,); kept on the device where it was asked for."""
        return self._moved("presence", self.degree(side) > 0, side, device, dtype)

    def _moved(self, what: str, factor: Tensor, side: str, device: Any, dtype: torch.dtype) -> Tensor:
        if torch.compiler.is_compiling():
            return factor.to(device, dtype)
        return self._kept((what, side, str(device), dtype), lambda: factor.to(device, dtype))

    # --- algebra ----------------------------------------------------------------------------------------------------

    def union(self, *others: Relation) -> Relation:
        """Return the pairs of this relation or any other, each once, ascending; times are dropped."""
        return self._of_keys(key_sets.union(self._keys(), *(self._checked(other)._keys() for other in others)))

    def meet(self, other: Relation) -> Relation:
        """Return the pairs that stand in both; they keep this relation's times and order."""
        return self._kept_edges(self._stands_in(other))

    def minus(self, other: Relation) -> Relation:
        """Return the pairs that do not stand in the other; they keep this relation's times and order."""
        return self._kept_edges(~self._stands_in(other))

    def dropped(self, rate: float, rng: RNGLike, what: str = "edges") -> Relation:
        """Return the relation without a random share of its pairs, or without the pairs of a share of its nodes.

        Parameters
        ----------
        rate : float
            Share to drop, from 0 to 1. Exactly ``round(rate * n)`` pairs, or users and as large a share of items, go.
        rng : int or numpy Generator
        what : {"edges", "nodes"}

        Notes
        -----
        Degrees are those of the remaining pairs.
        """
        if not 0 <= rate <= 1:
            raise UsageError(f"rate must be from 0 to 1, got {rate}")
        generator = as_generator(rng)

        def kept(count: int) -> Tensor:
            stays = np.ones(count, bool)
            stays[generator.permutation(count)[: round(rate * count)]] = False
            return torch.from_numpy(stays)

        if what == "edges":
            return self._kept_edges(kept(self.num_edges))
        if what != "nodes":
            raise UnknownNameError("subject of dropping", what, ("edges", "nodes"))
        return self._kept_edges(kept(self.num_users)[self.users] & kept(self.num_items)[self.items])

    def of_users(self, users: Tensor) -> Relation:
        """Return the pairs of some users as what is read of the relation in their block, see `mbgraph.nn.blocks`.

        Factors stay those of this relation, but what an item receives is scaled by its users over those in the block.

        Parameters
        ----------
        users : int64 tensor (B,)
            Ascending, each once.
        """
        adjacency = self.adjacency("user")
        pointers = torch.from_numpy(adjacency.pointers)
        counts = pointers[users + 1] - pointers[users]  # (B,)
        ends = counts.cumsum(0)
        places = torch.arange(int(counts.sum())) + (pointers[users] - ends + counts).repeat_interleave(counts)
        items = torch.from_numpy(adjacency.indices[places.numpy()].astype(np.int64))
        made = Relation(
            users.repeat_interleave(counts), items, self.num_users, self.num_items, norm=self.norm, backend=self.backend
        )
        share = self._degrees[1] / made._degrees[1].clamp_min(1)  # (I,)
        at_items = torch.where(made._degrees[1] > 0, share, 0.0).to(torch.float64).unsqueeze(1)  # (I, 1)
        made._send = self._send
        made._receive = (self._receive[0], self._receive[1] * at_items)
        return made

    def keys(self) -> np.ndarray[Any, Any]:
        """Return ``user * num_items + item`` of every pair, ascending: int64 (E,)."""
        return np.sort((self.users * self.num_items + self.items).numpy())

    def _keys(self) -> np.ndarray[Any, Any]:
        return (self.users * self.num_items + self.items).numpy()

    def _checked(self, other: Relation) -> Relation:
        if (other.num_users, other.num_items) != (self.num_users, self.num_items):
            raise UsageError(
                f"relations over {self.num_users} x {self.num_items} and {other.num_users} x {other.num_items} nodes "
                "have no pairs in common",
                "take both from one graph",
            )
        return other

    def _of_keys(self, found: np.ndarray[Any, Any]) -> Relation:
        users, items = np.divmod(found, np.int64(self.num_items))
        return Relation(users, items, self.num_users, self.num_items, norm=self.norm, backend=self.backend)

    def _stands_in(self, other: Relation) -> Tensor:
        return torch.from_numpy(key_sets.contains(self._keys(), self._checked(other).keys()))

    def _kept_edges(self, keep: Tensor) -> Relation:
        return Relation(
            self.users[keep],
            self.items[keep],
            self.num_users,
            self.num_items,
            norm=self.norm,
            time=None if self.time is None else self.time[keep],
            backend=self.backend,
        )

    # --- views ------------------------------------------------------------------------------------------------------

    def neighbors(self, side: str) -> tuple[Any, Any]:
        """Return ``(pointers, indices)`` of one side's neighbours, ascending: int64 (R + 1,), uint32 (E,)."""
        adjacency = self.adjacency(side)
        return adjacency.pointers, adjacency.indices

    def adjacency(self, side: str) -> Adjacency:
        """Return one side's neighbours as the compiled kernels read them."""

        def make() -> Adjacency:
            rows, columns = (self.users, self.items) if _side(side) == 0 else (self.items, self.users)
            count, other = (self.num_users, self.num_items)[:: 1 if _side(side) == 0 else -1]
            pointers = np.zeros(count + 1, np.int64)
            np.cumsum(self.degree(side).numpy(), out=pointers[1:])
            packed = (rows << 32).add_(columns)
            ordered = packed if bool((packed[1:] >= packed[:-1]).all()) else packed.sort().values
            return Adjacency(pointers, ordered.numpy().astype(np.uint32), other)  # the lower half

        return self._kept(("adjacency", side), make)

    def operator(self) -> Operator:
        """Return the relation as the compiled kernels read it."""
        return self._kept(
            ("operator",),
            lambda: Operator(
                (self.adjacency("user"), self.adjacency("item")),
                (self.send("user").numpy()[:, 0], self.send("item").numpy()[:, 0]),
                (self.receive("user").numpy()[:, 0], self.receive("item").numpy()[:, 0]),
            ),
        )

    def joined(self, relations: Sequence[Relation], device: torch.device) -> BlockMatrix:
        """Return several relations, of which this is the first, as one matrix on a device."""
        key = ("joined", *(relation.handle for relation in relations), str(device))
        return self._kept(key, lambda: BlockMatrix.of([relation.operator() for relation in relations], device))

    def _kept(self, key: Any, make: Any) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def _check_rows(self, rows: Tensor, to: str) -> None:
        source = "item" if to == "user" else "user"
        expected = self.num_items if to == "user" else self.num_users
        if rows.ndim != 2 or rows.shape[0] != expected:
            raise UsageError(f"propagation to {to}s needs {expected} {source} rows, not {tuple(rows.shape)}")

    def _sum(self, rows: Tensor, to: str) -> Tensor:
        self._check_rows(rows, to)
        if processes.count() > 1:
            return self._shared_sum(rows, to)
        kernel = self.backend if self.backend in ("dgl", "torch") else "dgl" if rows.device.type == "cpu" else "torch"
        if kernel == "dgl":
            return import_dgl().ops.copy_u_sum(self._dgl_view(to), rows.contiguous())
        return torch.mm(self._torch_view(to, rows.device, rows.dtype), rows)

    def _shared_sum(self, rows: Tensor, to: str) -> Tensor:
        """Return the sum of which every process computes its own rows."""
        number, count = processes.rank(), processes.count()

        def make() -> tuple[list[int], Tensor]:
            matrix = self._torch_view(to, rows.device, rows.dtype)
            pointers = matrix.crow_indices()
            cuts = torch.linspace(0, self.num_edges + 2 * len(pointers) - 2, count + 1).to(pointers)
            cost = pointers + 2 * torch.arange(len(pointers), device=pointers.device)  # as the compiled kernels count
            bounds = torch.searchsorted(cost, cuts).clamp_max(len(pointers) - 1).tolist()
            bounds[0], bounds[-1] = 0, len(pointers) - 1
            start, stop = bounds[number], bounds[number + 1]
            edges = slice(int(pointers[start]), int(pointers[stop]))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch calls its CSR layout beta on first use
                own = torch.sparse_csr_tensor(
                    pointers[start : stop + 1] - pointers[start], matrix.col_indices()[edges], matrix.values()[edges],
                    (stop - start, matrix.shape[1]), check_invariants=False,
                )  # fmt: skip
            return bounds, own

        bounds, own = self._kept(("shared", to, str(rows.device), rows.dtype, number, count), make)
        out = rows.new_empty(self.num_users if to == "user" else self.num_items, rows.shape[1])
        out[bounds[number] : bounds[number + 1]] = torch.mm(own, rows)
        processes.share_rows([out], [bounds])
        return out

    def _dgl_view(self, to: str) -> Any:
        def make() -> Any:
            graph = import_dgl().heterograph(
                {("user", "behavior", "item"): (self.users, self.items)},
                num_nodes_dict={"user": self.num_users, "item": self.num_items},
            )
            return graph if to == "item" else import_dgl().reverse(graph)

        return self._kept(("dgl", to), lambda: make().formats("csc"))

    def _torch_view(self, to: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        def make() -> Tensor:
            return self._csr(to, torch.ones(self.num_edges, dtype=dtype)).to(device)

        return self._kept(("torch", to, str(device), dtype), make)

    def _csr(self, to: str, weights: Tensor) -> Tensor:
        """Return the matrix whose rows are the nodes of ``to``, with a value per pair: sparse (R, C)."""
        order, pointers, columns = self._order(to)
        shape = (self.num_items, self.num_users) if to == "item" else (self.num_users, self.num_items)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls its CSR layout beta on first use
            device = weights.device
            return torch.sparse_csr_tensor(
                pointers.to(device), columns.to(device), weights[order.to(device)], shape, check_invariants=False
            )

    def _order(self, to: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pairs sorted by the nodes of ``to``: order (E,), pointers (R + 1,), columns (E,)."""

        def make() -> tuple[Tensor, Tensor, Tensor]:
            rows, columns = (self.users, self.items) if to == "user" else (self.items, self.users)
            order = torch.argsort((rows << 32) + columns)
            pointers = torch.cat([torch.zeros(1, dtype=torch.int64), self.degree(to).cumsum(0)])
            return order, pointers, columns[order]

        return self._kept(("order", to), make)


def _rows(kind: str, values: Any, count: int) -> Tensor:
    rows = torch.as_tensor(values).to("cpu", torch.int64).contiguous()
    if rows.ndim != 1:
        raise UsageError(f"{kind} rows of a relation must be (E,), not {tuple(rows.shape)}")
    if len(rows):
        low, high = int(rows.min()), int(rows.max())
        if low < 0 or high >= count:
            raise UsageError(f"{kind} row {low if low < 0 else high} is out of range, there are {count} {kind}s")
    return rows


def _factor(degree: Tensor, power: float) -> Tensor:
    """Return ``degree ** power``, 0 for nodes without an edge: int64 (N,) -> float64 (N, 1)."""
    scale = degree.clamp_min(1).to(torch.float64).pow(power)
    return torch.where(degree > 0, scale, torch.zeros_like(scale)).unsqueeze(1)


def _side(name: str) -> int:
    if name not in _SIDES:
        raise UnknownNameError("side", name, _SIDES)
    return _SIDES.index(name)


# --- the sum as an operator of torch: compiled graphs keep it as it is, and it derives itself by its other direction
# ----

_numbers = itertools.count()
_alive: weakref.WeakValueDictionary[int, Relation] = weakref.WeakValueDictionary()


@torch.library.custom_op("mbgraph::neighbor_sum", mutates_args=())
def _neighbor_sum(rows: Tensor, handle: int, to_users: bool) -> Tensor:
    return _alive[handle]._sum(rows, "user" if to_users else "item")


@_neighbor_sum.register_fake
def _(rows: Tensor, handle: int, to_users: bool) -> Tensor:
    relation = _alive[handle]
    return rows.new_empty(relation.num_users if to_users else relation.num_items, rows.shape[1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.handle, ctx.to_users = inputs
    ctx.relation = _alive[ctx.handle]  # lives as long as what may be derived


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return _neighbor_sum(gradient, ctx.handle, not ctx.to_users), None, None


_neighbor_sum.register_autograd(_backward, setup_context=_setup)


class _WeightedSum(torch.autograd.Function):
    """Rows times weights of pairs, summed; the derivative of a weight is a product of two rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, relation: Relation, to: str) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.relation, ctx.to = relation, to
        return torch.mm(relation._csr(to, weights.detach()), rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        rows, weights = ctx.saved_tensors
        (gradient,) = gradients
        relation, to = ctx.relation, ctx.to
        back = "item" if to == "user" else "user"
        source, target = (relation.items, relation.users) if to == "user" else (relation.users, relation.items)
        of_weights = torch.empty_like(weights)
        for start in range(0, relation.num_edges, _EDGES_AT_A_TIME):
            part = slice(start, start + _EDGES_AT_A_TIME)
            at_source, at_target = source[part].to(rows.device), target[part].to(rows.device)
            of_weights[part] = torch.linalg.vecdot(rows[at_source], gradient[at_target])
        return torch.mm(relation._csr(back, weights), gradient), of_weights, None, None
