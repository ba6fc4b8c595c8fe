"""Relations as one matrix, and the pass over it in torch and in Triton, against dense float64 matrices and autograd.

Triton's own interpreter runs its kernels where there is no device, so they are tested wherever Triton is installed.
"""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbgraph import _kernels
from mbgraph._kernels import BlockMatrix, Plain
from mbgraph.errors import UsageError
from mbgraph.nn import Relation, propagate, propagate_each
from mbgraph.nn.blocks import Block, reading

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read where Triton is imported
try:
    import triton  # noqa: F401

    HAS_TRITON = True
except ImportError:  # early ones are installed without setuptools, which they import
    HAS_TRITON = False
TOLERANCE = 4e-7
"""Of the largest number."""


def triton_kernels(**options):
    """Return the kernels in Triton, interpreted where there is no device."""
    if not HAS_TRITON:
        pytest.skip("needs Triton")
    from mbgraph._kernels.triton_blocks import Triton

    return Triton(**options)


@pytest.fixture(params=["plain", "triton"])
def kernels(request):
    """The kernels either way."""
    return Plain() if request.param == "plain" else triton_kernels()


def random_relations(rng, num_users=11, num_items=9, count=2, density=0.2, hub=True, norm="sym"):
    """Relations of random pairs: the last user and item have none, and one item may have every other user."""
    made = []
    for _ in range(count):
        dense = rng.random((num_users, num_items)) < density
        dense[:, :1] |= hub
        dense[-1], dense[:, -1] = False, False
        made.append(Relation(*np.nonzero(dense), num_users, num_items, norm=norm, backend="triton"))
    return made


def joined(relations):
    return BlockMatrix.of([relation.operator() for relation in relations], DEVICE)


def dense_layers(matrix, users, items, weights, layer_norm):
    """Return the sum of layers by dense products in float64, as autograd derives it: (R, D)."""
    layer = torch.cat([users, items]).repeat(matrix.count, 1)
    full = matrix.dense().double().cpu()
    if layer_norm:
        full = (matrix.ones.to_dense() * matrix.send).double().cpu()
    total = weights[0] * layer
    for weight in weights[1:]:
        layer = full @ layer
        if layer_norm:
            layer = torch.nn.functional.normalize(layer, eps=1e-12)
        total = total + weight * layer
    return total


def assert_near(made, expected):
    error = float((made.detach().cpu().double() - expected).abs().max())
    assert error <= TOLERANCE * max(float(expected.abs().max()), 1e-30)


def test_the_matrix_is_its_relations_side_by_side():
    rng = np.random.default_rng(0)
    relations = random_relations(rng, 5, 4, 2)
    matrix = BlockMatrix.of([relation.operator() for relation in relations])
    expected = torch.zeros(18, 18)
    for number, relation in enumerate(relations):
        for user, item in zip(relation.users.tolist(), relation.items.tolist(), strict=True):
            u, i = 9 * number + user, 9 * number + 5 + item
            factor = float(relation.degree("user")[user] * relation.degree("item")[item]) ** -0.5
            expected[u, i] = expected[i, u] = factor
    torch.testing.assert_close(matrix.dense(), expected)
    assert (matrix.num_nodes, matrix.num_rows, matrix.num_users, matrix.num_items) == (9, 18, 5, 4)
    lengths = matrix.pointers.diff()[matrix.order.long()]
    assert (lengths[:-1] >= lengths[1:]).all(), "rows by length, longest first"
    assert sorted(matrix.order.tolist()) == list(range(18))
    assert {part.dtype for part in (matrix.pointers, matrix.columns, matrix.order)} == {torch.int32}


def test_too_many_pairs_for_32_bits(monkeypatch):
    monkeypatch.setattr("mbgraph._kernels.blocks._MOST", 10)
    relation = Relation(np.arange(6), np.arange(6), 6, 6)
    with pytest.raises(UsageError, match="6 pairs are more than the kernels of backend=triton number; use --set"):
        BlockMatrix.of([relation.operator()])


@pytest.mark.parametrize(
    ("width", "layer_norm"), [(1, False), (5, True), (5, False), (64, True), (64, False), (67, True)]
)
def test_layers_and_their_derivative(kernels, layer_norm, width):
    rng = np.random.default_rng(width)
    relations = random_relations(rng, 40 if width == 64 else 11)
    matrix, weights = joined(relations), (0.5, 1.0, 0.25, 1.5)
    users, items = (torch.from_numpy(rng.normal(size=(count, width))) for count in (matrix.num_users, 9))
    probe = torch.from_numpy(rng.normal(size=(matrix.num_rows, width)))
    tables = [table.float().to(DEVICE).requires_grad_() for table in (users, items)]
    exact = [table.detach().cpu().double().requires_grad_() for table in tables]
    expected = dense_layers(matrix, *exact, weights, layer_norm)
    pairs = _kernels.encode_blocks(matrix, *tables, None, weights, layer_norm, kernels, None)
    made = torch.cat([part for pair in pairs for part in pair])
    assert_near(made, expected.detach())
    (made * probe.float().to(DEVICE)).sum().backward()
    (expected * probe.float().double()).sum().backward()
    for one, two in zip(tables, exact, strict=True):
        assert_near(one.grad, two.grad)
        assert (one.grad[-1].cpu() - weights[0] * probe_of(probe, matrix, one is tables[0])).abs().max() < 1e-6


def probe_of(probe, matrix, is_user):
    """Return what an isolated last node is given: the probe's rows of all relations, added."""
    rows = probe.view(matrix.count, matrix.num_nodes, -1).sum(0)
    return rows[matrix.num_users - 1 if is_user else -1].float()


def test_one_row_with_very_many_neighbours(kernels):
    rng = np.random.default_rng(1)
    users = np.arange(400)
    relation = Relation(np.r_[users, users], np.r_[0 * users, 1 + users % 2], 400, 3, backend="triton")
    matrix = joined([relation])
    tables = [torch.from_numpy(rng.normal(size=(count, 16))).float().to(DEVICE) for count in (400, 3)]
    for layer_norm in (True, False):
        exact = dense_layers(matrix, *(table.cpu().double() for table in tables), (1.0, 1.0), layer_norm)
        ((of_users, of_items),) = _kernels.encode_blocks(matrix, *tables, None, (1.0, 1.0), layer_norm, kernels, None)
        assert_near(torch.cat([of_users, of_items]), exact)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.floats(0, 1), st.booleans())
def test_triton_is_torch_on_any_graph(seed, num_users, num_items, count, density, layer_norm):
    kernels = triton_kernels(edges=4)
    rng = np.random.default_rng(seed)
    relations = random_relations(rng, num_users, num_items, count, density, hub=False)
    matrix = joined(relations)
    made = []
    for each in (kernels, Plain()):
        generator = torch.Generator().manual_seed(seed)
        tables = [torch.randn(n, 3, generator=generator).to(DEVICE).requires_grad_() for n in (num_users, num_items)]
        pairs = _kernels.encode_blocks(matrix, *tables, None, (1.0, 0.0, 2.0), layer_norm, each, None)
        total = torch.cat([part for pair in pairs for part in pair])
        (total * torch.randn(total.shape, generator=generator).to(DEVICE)).sum().backward()
        made.append([total.detach(), *(table.grad for table in tables)])
    for one, two in zip(*made, strict=True):
        assert float((one - two).abs().max()) <= 4e-6 * max(1.0, float(two.abs().max()))


@pytest.mark.parametrize("layer_norm", [True, False])
def test_the_kernels_one_by_one_and_twice_the_same(layer_norm):
    """Triton's write what torch's write, in place too; and the same bits again."""
    kernels, plain = triton_kernels(), Plain()
    rng = np.random.default_rng(7)
    matrix = joined(random_relations(rng))
    rows = torch.from_numpy(rng.normal(size=(3, matrix.num_rows, 6))).float().to(DEVICE)
    made = []
    for each in (kernels, plain, kernels):
        out, total, inverse = rows[0].clone(), rows[1].clone(), rows[0, :, 0].clone()
        each.forward(matrix, rows[2], layer_norm, 0.5, None, total, out, inverse)
        derived, back = rows[0].clone(), torch.empty_like(out)
        each.derive(matrix, derived, 2.0, layer_norm, out, inverse, derived)
        each.back(matrix, derived, rows[1], 0.25, back)
        made.append((out, total, inverse, derived, back))
    for one, two, again in zip(*made, strict=True):
        assert_near(one, two.cpu().double())
        assert torch.equal(one, again)


def test_a_row_too_short_to_have_a_direction(kernels):
    """Below 1e-12 a norm is a constant, for us as for torch."""
    matrix = joined([Relation([0, 1], [0, 1], 2, 2, backend="triton")])
    users, items = torch.tensor([[1e-20, 0.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    tables = [table.to(DEVICE).requires_grad_() for table in (users, items)]
    exact = [table.detach().cpu().double().requires_grad_() for table in tables]
    pairs = _kernels.encode_blocks(matrix, *tables, None, (1.0, 1.0), True, kernels, None)
    torch.cat([part for pair in pairs for part in pair]).sum().backward()
    dense_layers(matrix, *exact, (1.0, 1.0), True).sum().backward()
    for one, two in zip(tables, exact, strict=True):
        torch.testing.assert_close(one.grad.cpu().double(), two.grad, rtol=1e-6, atol=1e-6)


# --- behind `propagate` ------------------------------------------------------------------------------------------


@pytest.fixture
def taken(kernels, monkeypatch):
    """`propagate` is given the kernels on whatever device; the list of matrices that they read."""
    real, seen = kernels.forward, []

    def forward(matrix, *arguments):
        seen.append(matrix)
        real(matrix, *arguments)

    monkeypatch.setattr(kernels, "forward", forward)
    monkeypatch.setattr(_kernels, "block_kernels", lambda device: kernels)
    return seen


def tables_of(relations, width=8):
    generator = torch.Generator().manual_seed(3)
    return tuple(
        torch.randn(count, width, generator=generator).to(DEVICE).requires_grad_()
        for count in (relations[0].num_users, relations[0].num_items)
    )


@pytest.mark.parametrize(
    ("norm", "rows", "layer_norm"),
    [("sym", "chosen", True), ("sym", "all", False), ("left", "chosen", False), ("right", "all", True)],
)
def test_propagate_gives_the_same_either_way(taken, norm, rows, layer_norm):
    relations = random_relations(np.random.default_rng(2), norm=norm)
    at = None
    if rows == "chosen":
        at = [(torch.tensor([0, 5, 5, 10], device=DEVICE), torch.tensor([8, 1], device=DEVICE))] * 2
    found = []
    for each in (relations, [relation.replace(backend="torch") for relation in relations]):
        tables = tables_of(relations)
        pairs = propagate_each(each, *tables, 2, layer_norm=layer_norm, at=at)
        sum((part * (number + 1)).square().sum() for number, pair in enumerate(pairs) for part in pair).backward()
        found.append([part.detach() for pair in pairs for part in pair] + [table.grad for table in tables])
    assert len(taken) == 2
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_the_matrix_is_made_once_and_derived_twice(taken):
    relations = random_relations(np.random.default_rng(4), count=1)
    found = []
    for each in (relations[0], relations[0].replace(backend="torch")):
        users, items = tables_of(relations)
        made = propagate(each, users, items, 2, layer_norm=True)
        (slope,) = torch.autograd.grad(made[0].square().sum(), users, create_graph=True)
        slope.square().sum().backward()
        found.append((slope.detach(), users.grad, items.grad))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    propagate(relations[0], users, items, 1)
    assert len({id(matrix) for matrix in taken}) == 1


def test_who_takes_another_path(taken):
    """Asked for otherwise, in bfloat16, too wide, in a block, in another type; each gives numbers all the same."""
    relations = random_relations(np.random.default_rng(5))
    users, items = tables_of(relations)
    propagate_each([relation.replace(backend="auto") for relation in relations], users, items, 2)
    propagate_each(relations, users, items, 2, row_dtype="bfloat16")
    propagate_each(relations, users, items, 0)
    propagate_each(relations, users.double(), items.double(), 1)
    wide = tables_of(relations, _kernels.WIDEST + 1)
    propagate_each(relations, *wide, 1)
    with reading(Block(torch.arange(3))):
        propagate_each(relations, users, items, 1)
    assert taken == []


def test_there_are_kernels_for_cuda_alone():
    assert _kernels.block_kernels(torch.device("cpu")) is None
    assert (_kernels.block_kernels(torch.device("cuda")) is not None) == HAS_TRITON
