"""Message passing in a block of users against dense matrices; the shared cases of models look at their steps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from mbgraph import _kernels
from mbgraph.nn import Relation, propagate
from mbgraph.nn.blocks import Block, reading
from mbgraph.nn.relation import NORMS

U, I, D = 9, 6, 8
OWN = torch.tensor([7, 2, 5, 2])


def random_matrix(seed=3):
    made = np.random.default_rng(seed).random((U, I)) < 0.5
    made[-1], made[:, -1] = False, False
    return made


def dense(matrix, norm, users):
    """Return what users read of items and items of users, as the block has it: (U, I), (I, U)."""
    full = torch.from_numpy(matrix).double()
    left, right = full.sum(1), full.sum(0)
    send = {"sym": -0.5, "right": -1.0}.get(norm, 0.0)
    receive = {"sym": -0.5, "left": -1.0}.get(norm, 0.0)

    def power(degrees, exponent):
        return torch.where(degrees > 0, degrees.clamp_min(1) ** exponent, 0.0)

    kept = torch.zeros_like(full)
    kept[users] = full[users]
    share = torch.where(kept.sum(0) > 0, right / kept.sum(0).clamp_min(1), 0.0)
    to_users = power(left, receive)[:, None] * kept * power(right, send)
    to_items = (share * power(right, receive))[:, None] * kept.T * power(left, send)
    return to_users, to_items


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_it_equals_the_dense_matrices(norm, layer_norm, backend):
    if backend == "auto" and not _kernels.available:
        pytest.skip("needs numba")
    matrix = random_matrix()
    relation = Relation(*np.nonzero(matrix), U, I, norm=norm, backend=backend)
    generator = torch.Generator().manual_seed(1)
    tables = [torch.randn(count, D, generator=generator).requires_grad_() for count in (U, I)]
    at = (torch.arange(U), torch.arange(I))
    with reading(Block(OWN)):
        made = propagate(relation, *tables, 2, layer_norm=layer_norm, weights=(1.0, 0.5, 2.0), at=at)
    gradients = torch.autograd.grad(sum((table**2).sum() for table in made), tables)  # outside: it remembers its pairs

    to_users, to_items = (part.float() for part in dense(matrix, norm, OWN))
    copies = [table.detach().clone().requires_grad_() for table in tables]
    users, items = layer = tuple(copies)
    for weight in (0.5, 2.0):
        layer = (to_users @ layer[1], to_items @ layer[0])
        if layer_norm:
            layer = tuple(torch.nn.functional.normalize(part) for part in layer)
        users, items = users + weight * layer[0], items + weight * layer[1]
    assert_close(made, (users, items), rtol=1e-4, atol=1e-5)
    expected = torch.autograd.grad((users**2).sum() + (items**2).sum(), copies)
    assert_close(gradients, expected, rtol=1e-4, atol=1e-4)


@given(st.sets(st.integers(0, U - 1)), st.integers(0, 50))
def test_a_blocks_pairs_are_those_of_its_users(users, seed):
    matrix = random_matrix(seed)
    order = np.random.default_rng(seed).permutation(int(matrix.sum()))
    rows, columns = (part[order] for part in np.nonzero(matrix))
    relation = Relation(rows, columns, U, I)
    own = relation.of_users(torch.tensor(sorted(users), dtype=torch.int64))
    found = set(zip(own.users.tolist(), own.items.tolist(), strict=True))
    assert found == {(user, item) for user, item in zip(rows.tolist(), columns.tolist(), strict=True) if user in users}
    assert own.num_edges == len(found)


def test_everybody_is_the_whole_graph_and_blocks_end():
    relation = Relation(*np.nonzero(random_matrix()), U, I)
    tables = torch.randn(U, D), torch.randn(I, D)
    whole = propagate(relation, *tables, 2)
    with reading(Block(torch.arange(U))):
        assert_close(propagate(relation, *tables, 2), whole)
    with reading(Block(OWN)):
        with reading(None):
            pass
        assert not torch.equal(propagate(relation, *tables, 2)[0], whole[0])
        with pytest.raises(ZeroDivisionError), reading(Block(OWN[:1])):
            1 / 0  # noqa: B018
    assert_close(propagate(relation, *tables, 2), whole)


def test_relations_are_cut_once():
    block, relation = Block(OWN), Relation(*np.nonzero(random_matrix()), U, I)
    assert block.of(relation) is block.of(relation)
    assert block.holds(block.of(relation))
    assert not block.holds(relation)
    assert block.users.tolist() == [2, 5, 7]
