"""Relations: their algebra against sets, their sums against dense matrices, what they refuse, and that they copy."""

import copy
import io
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.nn import Relation
from mbgraph.nn import relation as module

U, I, D = 9, 7, 3


@st.composite
def relations(draw, count=2):
    """Relations over the same nodes, each with its pairs in any order and a time of its own per pair."""
    num_users, num_items = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    cell = st.tuples(st.integers(0, num_users - 1), st.integers(0, num_items - 1))
    made = []
    for number in range(count):
        cells = draw(st.lists(cell, unique=True, max_size=20))
        users, items = np.array(cells, np.int64).reshape(-1, 2).T
        made.append(
            Relation(users, items, num_users, num_items, time=100 * number + np.arange(len(cells)), norm="left")
        )
    return made


def cells(relation):
    return list(zip(relation.users.tolist(), relation.items.tolist(), strict=True))


def check_degrees(relation):
    found = cells(relation)
    assert relation.num_edges == len(found)
    assert relation.degree("user").tolist() == [
        sum(user == row for user, _ in found) for row in range(relation.num_users)
    ]
    assert relation.degree("item").tolist() == [
        sum(item == row for _, item in found) for row in range(relation.num_items)
    ]


@given(relations(count=3))
def test_union_holds_every_pair_once(made):
    union = made[0].union(*made[1:])
    assert cells(union) == sorted({cell for relation in made for cell in cells(relation)})
    assert union.time is None
    assert union.norm == "left"
    check_degrees(union)


@given(relations())
def test_meet_and_minus_part_the_pairs_and_keep_times_and_order(made):
    one, two = made
    others = set(cells(two))
    timed = list(zip(cells(one), one.time.tolist(), strict=True))
    for found, keeps in ((one.meet(two), True), (one.minus(two), False)):
        assert list(zip(cells(found), found.time.tolist(), strict=True)) == [
            entry for entry in timed if (entry[0] in others) == keeps
        ]
        assert found.norm == "left"
        check_degrees(found)


@given(relations(count=1), st.floats(0, 1), st.integers(0, 5))
def test_dropped_edges(made, rate, seed):
    (one,) = made
    less = one.dropped(rate, seed)
    assert less.num_edges == one.num_edges - round(rate * one.num_edges)
    timed = list(zip(cells(one), one.time.tolist(), strict=True))
    left = list(zip(cells(less), less.time.tolist(), strict=True))
    assert left == [entry for entry in timed if entry in left]
    assert cells(less) == cells(one.dropped(rate, seed))
    check_degrees(less)


@given(st.integers(1, 8), st.integers(1, 8), st.floats(0, 1), st.integers(0, 5))
def test_dropped_nodes(num_users, num_items, rate, seed):
    """Of all pairs there are exactly those of the nodes that stay."""
    users, items = np.divmod(np.arange(num_users * num_items), num_items)
    less = Relation(users, items, num_users, num_items, time=users).dropped(rate, seed, "nodes")
    stay_users, stay_items = num_users - round(rate * num_users), num_items - round(rate * num_items)
    assert less.num_edges == stay_users * stay_items
    assert (less.num_users, less.num_items) == (num_users, num_items)
    if less.num_edges:
        assert int((less.degree("user") > 0).sum()) == stay_users
        assert int((less.degree("item") > 0).sum()) == stay_items
    assert less.time.tolist() == less.users.tolist()


def test_drops_are_random_and_repeat():
    one = random_relation(seed=3)
    drawn = {tuple(cells(one.dropped(0.5, seed, what))) for seed in range(6) for what in ("edges", "nodes")}
    assert len(drawn) == 12
    generator = np.random.default_rng(1)
    assert cells(one.dropped(0.5, generator)) == cells(one.dropped(0.5, 1))


def random_relation(seed=0, **options):
    """A relation whose last user and last item have no edge; pairs in random order."""
    rng = np.random.default_rng(seed)
    matrix = rng.random((U, I)) < 0.4
    matrix[-1], matrix[:, -1] = False, False
    matrix[0, 0] = True
    users, items = np.nonzero(matrix)
    order = rng.permutation(len(users))
    return Relation(users[order], items[order], U, I, **options)


def dense(relation):
    matrix = torch.zeros(relation.num_users, relation.num_items, dtype=torch.float64)
    matrix[relation.users, relation.items] = 1
    return matrix


def normalised(matrix, norm):
    """Return what rows of items are multiplied by to give users, and rows of users to give items."""
    degrees = matrix.sum(1), matrix.sum(0)
    inverse = [torch.where(degree > 0, 1 / degree.clamp_min(1), 0) for degree in degrees]
    if norm == "sym":
        made = inverse[0].sqrt()[:, None] * matrix * inverse[1].sqrt()
        return made, made.T
    if norm == "left":
        return inverse[0][:, None] * matrix, inverse[1][:, None] * matrix.T
    if norm == "right":
        return matrix * inverse[1], matrix.T * inverse[0]
    return matrix, matrix.T


@pytest.mark.parametrize("backend", ["auto", "dgl", "torch"])
@pytest.mark.parametrize("norm", ["sym", "left", "right", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_propagation_is_the_dense_product_in_both_directions(norm, backend, dtype):
    relation = random_relation(norm=norm, backend=backend)
    users, items = torch.randn(U, D, dtype=dtype), torch.randn(I, D, dtype=dtype)
    to_users, to_items = (matrix.to(dtype) for matrix in normalised(dense(relation), norm))
    assert_close(relation.propagate(items, "user"), to_users @ items)
    assert_close(relation.propagate(users, "item"), to_items @ users)


@pytest.mark.parametrize("backend", ["auto", "dgl", "torch"])
def test_a_named_backend_is_the_one_that_runs(backend, monkeypatch):
    """The kernel of the other is broken."""
    relation = random_relation(backend=backend)

    def broken(*_):
        raise AssertionError("the other kernel ran")

    monkeypatch.setattr(relation, "_dgl_view" if backend == "torch" else "_torch_view", broken)
    items = torch.randn(I, D)
    assert_close(relation.neighbor_sum(items, "user"), dense(relation).float() @ items)


def test_the_neighbor_sum_derives_twice():
    relation = random_relation()
    rows = torch.randn(I, D, dtype=torch.float64, requires_grad=True)
    matrix = dense(relation)
    gram = matrix.T @ matrix
    summed = relation.neighbor_sum(rows, "user")
    (first,) = torch.autograd.grad(summed.square().sum(), rows, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), rows)
    assert_close(first, 2 * gram @ rows)
    assert_close(second, 8 * gram @ gram @ rows)
    assert torch.autograd.gradcheck(
        lambda r: relation.propagate(r, "item"), torch.randn(U, 2).double().requires_grad_()
    )


@pytest.mark.parametrize("to", ["user", "item"])
@pytest.mark.parametrize("at_a_time", [2**20, 4])
def test_a_weighted_sum_and_both_its_gradients(to, at_a_time, monkeypatch):
    monkeypatch.setattr(module, "_EDGES_AT_A_TIME", at_a_time)  # the gradient of the weights comes in parts
    relation = random_relation()
    count = relation.num_edges
    assert count % 4
    rows = torch.randn(I if to == "user" else U, D, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(count, dtype=torch.float64, requires_grad=True)
    matrix = torch.zeros(U, I, dtype=torch.float64).index_put((relation.users, relation.items), weights)
    expected = (matrix if to == "user" else matrix.T) @ rows
    made = relation.weighted_sum(rows, weights, to)
    assert_close(made, expected)
    probe = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * probe).sum(), (rows, weights))
    for mine, reference in zip(torch.autograd.grad((made * probe).sum(), (rows, weights)), wanted, strict=True):
        assert_close(mine, reference)
    assert torch.autograd.gradcheck(lambda r, w: relation.weighted_sum(r, w, to), (rows, weights))


def test_neighbours_ascend_whatever_the_order_of_the_pairs():
    relation = random_relation()
    matrix = dense(relation).numpy() > 0
    for side, lists in (("user", matrix), ("item", matrix.T)):
        pointers, indices = relation.neighbors(side)
        assert [indices[a:b].tolist() for a, b in itertools.pairwise(pointers)] == [
            np.flatnonzero(row).tolist() for row in lists
        ]


def test_replace_changes_one_thing():
    one = Relation([0, 1], [1, 0], 2, 2, time=[5, 6], norm="left", backend="torch")
    other = one.replace(norm="right", num_users=4)
    assert (other.norm, other.backend, other.num_users, other.num_items) == ("right", "torch", 4, 2)
    assert cells(other) == cells(one)
    assert other.time.tolist() == [5, 6]
    assert repr(other) == "Relation(users=4, items=2, edges=2, norm='right', backend='torch')"


def twins(value):
    """Return a value's deep copy, its pickle and what torch saves of it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return copy.deepcopy(value), pickle.loads(pickle.dumps(value)), torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("backend", ["auto", "dgl", "torch"])
def test_copies_work_before_and_after_use(backend):
    relation = random_relation(backend=backend, time=None, norm="left")
    rows = torch.randn(I, D)
    expected = dense(relation).float() @ rows
    fresh = twins(relation)
    assert_close(relation.neighbor_sum(rows, "user"), expected)
    relation.operator()
    for twin in (*fresh, *twins(relation)):
        assert cells(twin) == cells(relation)
        assert twin.norm == "left"
        assert twin.handle != relation.handle  # its own in the table that the operator of torch looks it up in
        assert_close(twin.neighbor_sum(rows, "user"), expected)
    gone = random_relation()
    derived = gone.neighbor_sum(rows.requires_grad_(), "user").sum()
    del gone  # what may be derived keeps it alive
    (gradient,) = torch.autograd.grad(derived, rows)
    assert_close(gradient, dense(relation).float().sum(0)[:, None].expand(I, D))


def test_errors_are_one_line_each():
    for arguments, options, message in (
        (([0, -1], [0, 0], 2, 2), {}, "user row -1 is out of range, there are 2 users"),
        (([0, 1], [0, 2], 2, 2), {}, "item row 2 is out of range, there are 2 items"),
        (([0, 1], [0], 2, 2), {}, r"different lengths: \[1, 2\]"),
        (([0, 1], [0, 1], 2, 2), {"time": [1]}, r"different lengths: \[1, 2\]"),
        (([[0]], [0], 2, 2), {}, r"user rows of a relation must be \(E,\), not \(1, 1\)"),
    ):
        with pytest.raises(UsageError, match=message):
            Relation(*arguments, **options)
    for options, message in (
        ({"backend": "cuda"}, "unknown propagation backend 'cuda'"),
        ({"norm": "symm"}, "unknown normalisation 'symm'; did you mean 'sym'"),
    ):
        with pytest.raises(UnknownNameError, match=message):
            Relation([0], [0], 1, 1, **options)
    one, other = random_relation(), Relation([0], [0], 1, 1)
    for combine in (one.union, one.meet, one.minus):
        with pytest.raises(UsageError, match="over 9 x 7 and 1 x 1 nodes have no pairs in common; take both from one"):
            combine(other)
    with pytest.raises(UsageError, match="rate must be from 0 to 1, got 1.5"):
        one.dropped(1.5, 0)
    with pytest.raises(UnknownNameError, match="subject of dropping 'node'; did you mean 'nodes'"):
        one.dropped(0.5, 0, "node")
    for call in (
        one.neighbor_sum,
        one.propagate,
        lambda rows, to: one.weighted_sum(rows, torch.ones(one.num_edges), to),
    ):
        with pytest.raises(UsageError, match=r"propagation to users needs 7 item rows, not \(3, 2\)"):
            call(torch.zeros(3, 2), "user")
        with pytest.raises(UsageError, match=r"propagation to items needs 9 user rows, not \(7, 2\)"):
            call(torch.zeros(7, 2), "item")
    with pytest.raises(UsageError, match=r"weighted_sum needs \d+ weights, one per pair, not \(2,\)"):
        one.weighted_sum(torch.zeros(7, 2), torch.ones(2), "user")
    with pytest.raises(UnknownNameError, match="unknown side 'users'; did you mean 'user'"):
        one.degree("users")


def test_a_replacement_that_changes_nothing_is_the_relation_itself():
    """A model and its encoder then share neighbour lists."""
    relation = Relation([0, 1], [0, 0], 2, 1)
    assert relation.replace(norm="sym", backend="auto", num_users=2) is relation
    assert relation.replace(backend="torch") is not relation
    assert relation.replace(num_users=3).num_users == 3
