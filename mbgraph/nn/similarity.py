"""How alike nodes of one side are by their neighbours, as sparse matrices and short lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from mbgraph.nn.relation import Relation

__all__ = ["most_similar", "swing"]


def swing(relation: Relation, side: str, *, alpha: float = 0.5, block: int = 1024) -> Any:
    r"""Return the Swing similarity of the nodes of one side.

    .. math:: \operatorname{sim}(i, j) = \sum_{u < v \in U_i \cap U_j} \frac{1}{\alpha + |N_u \cap N_v|}

    for items; users the other way round. Two items are alike when several users took both, and such a pair of users
    counts the more the less else they have in common.

    Parameters
    ----------
    relation : Relation
    side : {"user", "item"}
    alpha : float
    block : int
        Nodes of the other side per block. Memory is that of the pairs that share two neighbours with a block's nodes;
        time grows with the squared degrees of a side, so popular nodes dominate it.

    Returns
    -------
    scipy.sparse.csr_matrix (N, N)
        Symmetric, without a diagonal; float64.

    References
    ----------
    Yang et al., "Large Scale Product Graph Construction for Recommendation in E-commerce", arXiv 2010.05525.
    """
    lists, indices = relation.neighbors("item" if side == "user" else "user")
    of_side = relation.num_users if side == "user" else relation.num_items
    shape = (len(lists) - 1, of_side)
    own = sparse.csr_matrix((np.ones(len(indices)), indices.astype(np.int64), lists), shape)  # other side x side
    total = sparse.csr_matrix((of_side, of_side))
    columns = own.T.tocsr()
    for start in range(0, shape[0], block):
        common = (own[start : start + block] @ columns).tocoo()  # shared neighbours of two nodes of the other side
        one, other = common.row + start, common.col
        kept = (common.data > 1) & (one < other)  # fewer have no pair of neighbours in common
        both = own[one[kept]].multiply(own[other[kept]]).tocsr()
        weights = sparse.diags(1 / (alpha + common.data[kept]))
        total = total + both.T @ weights @ both
    total.setdiag(0)
    total.eliminate_zeros()
    return total.tocsr()


def most_similar(similarity: Any, count: int) -> Tensor:
    """Return per node those that are strictly more similar than its ``count``-th most similar one.

    Parameters
    ----------
    similarity : scipy.sparse matrix (N, N)
        Not negative; pairs that it does not hold have similarity 0, and so does a node with itself.
    count : int

    Returns
    -------
    int64 tensor (N, count - 1)
        Most similar first, -1 where there are fewer.
    """
    matrix = sparse.csr_matrix(similarity)
    matrix.eliminate_zeros()
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    rows, columns, values = rows[order], matrix.indices[order], matrix.data[order]
    place = np.arange(len(rows)) - matrix.indptr[rows]
    bound = np.zeros(matrix.shape[0])
    at_count = place == count - 1
    bound[rows[at_count]] = values[at_count]
    kept = values > bound[rows]
    found = np.full((matrix.shape[0], count - 1), -1, np.int64)
    found[rows[kept], place[kept]] = columns[kept]
    return torch.from_numpy(found)
