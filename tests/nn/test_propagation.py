"""One pass against dense float64 matrices: every option, every path, first and second derivatives."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mbgraph import _kernels
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.nn import Relation, hop, propagate, propagate_each
from mbgraph.nn.propagation import rows_added

U, I, D = 17, 13, 8
PATHS = ("compiled", "without numba", "torch")


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """What computes the sums; returns the backend to ask for."""
    if request.param == "compiled" and not _kernels.available:
        pytest.skip("needs numba")
    if request.param == "without numba":
        monkeypatch.setattr("mbgraph._kernels.available", False)
    return "torch" if request.param == "torch" else "auto"


def random_relation(seed=0, **options):
    """A relation whose last user and last item have no edge."""
    matrix = np.random.default_rng(seed).random((U, I)) < 0.25
    matrix[-1], matrix[:, -1] = False, False
    matrix[0, 0] = True
    return Relation(*np.nonzero(matrix), U, I, **options)


def tables(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(count, D, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
                 for count in (U, I))  # fmt: skip


AT = (torch.tensor([5, 0, 5, U - 1, 7]), torch.tensor([I - 1, 3, 3, 0]))


def operators(relation):
    """Return the normalised adjacency of either direction: (U, I), (I, U)."""
    matrix = torch.zeros(U, I, dtype=torch.float64)
    matrix[relation.users, relation.items] = 1
    power = {"sym": (-0.5, -0.5), "left": (-1, 0), "right": (0, -1), "none": (0, 0)}[relation.norm]
    made = []
    for adjacency in (matrix, matrix.T):
        receive, send = (
            torch.where(degree > 0, degree.clamp_min(1) ** exponent, 0)
            for degree, exponent in zip((adjacency.sum(1), adjacency.sum(0)), power, strict=True)
        )
        made.append(receive[:, None] * adjacency * send)
    return made


def unit(rows):
    """Return rows of length 1; rows of zeros stay, and so do all their derivatives."""
    size = rows.square().sum(1, keepdim=True)
    return torch.where(size > 0, rows / torch.where(size > 0, size, 1).sqrt(), 0)


def oracle(
    relation, users, items, num_layers, *, layer_norm=False, weights=None, residual=False, between=None, at=None
):
    """The definition, layer by layer."""
    to_users, to_items = operators(relation)
    layers = [(users, items)]
    for number in range(1, num_layers + 1):
        layer = [to_users @ layers[-1][1], to_items @ layers[-1][0]]
        if layer_norm:
            layer = [unit(rows) for rows in layer]
        if residual:
            layer = [rows + before for rows, before in zip(layer, layers[-1], strict=True)]
        layers.append(tuple(layer) if between is None else between(number, *layer))
    factors = [1 / (num_layers + 1)] * (num_layers + 1) if weights is None else weights
    total = [sum(factor * layer[side] for factor, layer in zip(factors, layers, strict=True)) for side in (0, 1)]
    return total if at is None else [rows[chosen] for rows, chosen in zip(total, at, strict=True)]


def derived(made, both):
    """Return values, first derivatives, and derivatives of those along another probe."""
    generator = torch.Generator().manual_seed(2)
    probes = [
        torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(rows.dtype) for rows in (*made, *both)
    ]
    total = sum((rows.square() * probe).sum() for rows, probe in zip(made, probes, strict=False))
    first = torch.autograd.grad(total, both, retain_graph=True)
    again = torch.autograd.grad(total, both, create_graph=True)
    along = sum((rows * probe).sum() for rows, probe in zip(again, probes[2:], strict=True))
    return [*made, *first, *again, *torch.autograd.grad(along, both)]


def noise(layer, users, items):
    return users + 0.1 * layer * torch.sign(users), items * (1 + 0.2 * layer)


def shown(options):
    return " ".join(f"{name}={getattr(value, '__name__', value)}" for name, value in options.items()) or "plain"


CASES = [
    {},
    {"layer_norm": True},
    {"weights": (1.0, 1.0, 1.0, 1.0)},
    {"weights": (0.0, 0.5, -2.0, 0.3)},
    {"weights": (0.0, 0.0, 0.0, 1.0)},
    {"weights": (1.0, 0.0, 2.0, 0.0)},
    {"weights": (0.0, 0.7, 0.0, 0.0), "layer_norm": True},
    {"residual": True},
    {"residual": True, "weights": (0.0, 0.0, 0.0, 1.0)},
    {"between": noise},
    {"between": noise, "layer_norm": True, "weights": (0.0, 1.0, 1.0, 1.0)},
    {"between": noise, "residual": True},
]


@pytest.mark.parametrize("at", [None, AT], ids=["whole", "rows"])
@pytest.mark.parametrize("norm", ["sym", "left", "right", "none"])
@pytest.mark.parametrize("options", CASES, ids=shown)
def test_every_option_equals_the_dense_oracle(options, norm, at):
    """In float64, where nothing hides behind rounding: values and both derivatives."""
    relation = random_relation(norm=norm)
    both = tables(torch.float64)
    expected = derived(oracle(relation, *both, 3, at=at, **options), both)
    for mine, reference in zip(derived(propagate(relation, *both, 3, at=at, **options), both), expected, strict=True):
        assert_close(mine, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("at", [None, AT], ids=["whole", "rows"])
@pytest.mark.parametrize(
    ("options", "norm"),
    [*((options, "sym") for options in CASES), ({}, "left"), ({}, "right"), ({"layer_norm": True}, "right")],
    ids=lambda value: value if isinstance(value, str) else shown(value),
)
def test_every_path_equals_the_dense_oracle(path, options, norm, at):
    """In float32: values, first derivatives, and derivatives of derivatives, which the passes write down themselves."""
    relation = random_relation(norm=norm, backend=path)
    both, exact = tables(), tables(torch.float64)
    expected = derived(oracle(relation, *exact, 3, at=at, **options), exact)
    found = derived(propagate(relation, *both, 3, at=at, **options), both)
    for mine, reference in zip(found, expected, strict=True):
        assert_close(mine.double(), reference, rtol=0, atol=3e-6 * max(1.0, float(reference.detach().abs().max())))


@pytest.mark.parametrize("num_layers", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"residual": True}, {"between": noise}], ids=shown)
@pytest.mark.parametrize("at", [None, AT], ids=["whole", "rows"])
def test_few_layers(path, num_layers, options, at):
    relation = random_relation(backend=path)
    both, exact = tables(), tables(torch.float64)
    for mine, reference in zip(
        propagate(relation, *both, num_layers, at=at, **options),
        oracle(relation, *exact, num_layers, at=at, **options),
        strict=True,
    ):
        assert_close(mine.double(), reference, rtol=0, atol=1e-5)


def test_without_gradients_the_numbers_are_the_same(path):
    relation = random_relation(backend=path)
    both, exact = tables(), tables(torch.float64)
    for options in CASES:
        for at in (None, AT):
            with torch.no_grad():
                made = propagate(relation, *both, 3, at=at, **options)
            for mine, reference in zip(made, oracle(relation, *exact, 3, at=at, **options), strict=True):
                assert not mine.requires_grad
                assert_close(mine.double(), reference, rtol=0, atol=3e-6 * float(reference.detach().abs().max()))


def test_one_table_may_learn_alone(path):
    """The other is a constant: its gradient is nobody's business, also in a derivative of a derivative."""
    relation = random_relation(backend=path)
    for side in (0, 1):
        both, exact = list(tables()), list(tables(torch.float64))
        both[1 - side], exact[1 - side] = both[1 - side].detach(), exact[1 - side].detach()
        found = derived_of_one(propagate(relation, *both, 2, at=AT), both[side])
        expected = derived_of_one(oracle(relation, *exact, 2, at=AT), exact[side])
        for mine, reference in zip(found, expected, strict=True):
            assert_close(mine.double(), reference, rtol=0, atol=1e-5 * float(reference.abs().max()))


def test_one_table_may_be_made_of_the_other(path):
    relation = random_relation(backend=path)
    users, exact = tables()[0], tables(torch.float64)[0]
    spread = torch.randn(I, U, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = derived_of_one(propagate(relation, users, spread.float() @ users, 2, at=AT), users)
    expected = derived_of_one(oracle(relation, exact, spread @ exact, 2, at=AT), exact)
    for mine, reference in zip(found, expected, strict=True):
        assert_close(mine.double(), reference, rtol=0, atol=1e-5 * float(reference.abs().max()))


def derived_of_one(made, table):
    total = sum(rows.square().sum() for rows in made)
    (first,) = torch.autograd.grad(total, table, create_graph=True)
    return first.detach(), *torch.autograd.grad(first.square().sum(), table)


def test_one_output_may_be_used_alone(path):
    relation = random_relation(backend=path)
    both, exact = tables(), tables(torch.float64)
    for side in (0, 1):
        found = derived_of_one([propagate(relation, *both, 2, at=AT)[side]], both[0])
        expected = derived_of_one([oracle(relation, *exact, 2, at=AT)[side]], exact[0])
        for mine, reference in zip(found, expected, strict=True):
            assert_close(mine.double(), reference, rtol=0, atol=1e-5 * float(reference.abs().max()))


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("has_rows", [True, False])
def test_several_relations_at_once_are_each_alone(path, layer_norm, has_rows):
    """Three relations and their joint gradient; each has rows of its own."""
    made = [random_relation(seed, backend=path) for seed in (1, 2, 3)]
    at = [(torch.tensor([0, 3, 3]), torch.tensor([1])), (torch.tensor([U - 1]), torch.tensor([2, 2, I - 1])), AT]
    both, exact = tables(), tables(torch.float64)
    options = {"layer_norm": layer_norm, "weights": (1.0, 0.5, 2.0)}
    expected = [
        oracle(relation, *exact, 2, at=rows if has_rows else None, **options)
        for relation, rows in zip(made, at, strict=True)
    ]
    found = propagate_each(made, *both, 2, at=at if has_rows else None, **options)
    flat, reference = ([rows for pair in pairs for rows in pair] for pairs in (found, expected))
    for mine, other in zip(flat, reference, strict=True):
        assert_close(mine.double(), other, rtol=0, atol=1e-5)
    for mine, other in zip(
        torch.autograd.grad(sum(rows.square().sum() for rows in flat), both),
        torch.autograd.grad(sum(rows.square().sum() for rows in reference), exact),
        strict=True,
    ):
        assert_close(mine.double(), other, rtol=0, atol=1e-5 * float(other.abs().max()))


def test_no_rows_at_all(path):
    relation = random_relation(backend=path)
    both = tables()
    nobody = (torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    for options in ({}, {"between": noise}, {"residual": True}):
        made = propagate(relation, *both, 2, at=nobody, **options)
        assert [tuple(rows.shape) for rows in made] == [(0, D), (0, D)]
        for gradient in torch.autograd.grad(sum(rows.sum() for rows in made), both):
            assert not gradient.any()


@pytest.mark.parametrize("has_rows", [True, False])
@pytest.mark.parametrize("backend", ["auto", "dgl", "torch"])
def test_a_named_backend_runs_and_not_the_compiled_kernels(backend, has_rows, monkeypatch):
    """Who names one wants that one: as an oracle, or because the kernels are suspected."""
    if not _kernels.available:
        pytest.skip("needs numba")
    encoded = []
    real = _kernels.encode
    monkeypatch.setattr("mbgraph._kernels.encode", lambda *rest: encoded.append(1) or real(*rest))
    relation = random_relation(backend=backend)
    at = AT if has_rows else None
    propagate(relation, *tables(), 2, at=at)
    assert encoded == [1] * (backend == "auto")
    encoded.clear()
    propagate_each([random_relation(1), relation], *tables(), 2, at=None if at is None else [at, at])
    assert encoded == [1] * (backend == "auto")  # one that names a backend speaks for all of a round


@pytest.mark.parametrize("options", [{}, {"between": noise}, {"residual": True}], ids=shown)
@pytest.mark.parametrize("has_rows", [True, False])
def test_weights_of_zero_give_zeros(path, has_rows, options):
    """All of them, layer 0 too: rows of zeros, and a gradient of zeros."""
    relation, both, at = random_relation(backend=path), tables(), AT if has_rows else None
    made = propagate(relation, *both, 2, weights=(0.0, 0.0, 0.0), at=at, **options)
    (again,) = propagate_each([relation], *both, 2, weights=(0.0, 0.0, 0.0), at=at and [at])
    shapes = [(len(rows), D) for rows in (AT if has_rows else both)]
    assert [tuple(rows.shape) for rows in made] == [tuple(rows.shape) for rows in again] == shapes
    for rows in (*made, *again, *torch.autograd.grad(sum(rows.sum() for rows in (*made, *again)), both)):
        assert not rows.any()


def test_a_layer_that_nobody_reads_is_not_computed(path, monkeypatch):
    """Weights that end in zeros: the layers are left out, not multiplied by zero."""
    relation = random_relation(backend=path)
    both = [table.detach() for table in tables()]
    short = propagate(relation, *both, 1, weights=(0.5, 2.0))
    calls = []
    real = Relation._sum
    monkeypatch.setattr(Relation, "_sum", lambda self, *rest: calls.append(1) or real(self, *rest))
    for mine, other in zip(propagate(relation, *both, 3, weights=(0.5, 2.0, 0.0, 0.0)), short, strict=True):
        assert torch.equal(mine, other)
    assert len(calls) == 2 * (path == "torch" or not _kernels.available)  # one layer; compiled kernels call none


@pytest.mark.parametrize("options", [{}, {"between": noise}, {"residual": True}, {"weights": (1.0, 0.0)}], ids=shown)
@pytest.mark.parametrize("num_layers", [0, 1])
def test_a_row_outside_its_table_is_refused(path, options, num_layers):
    """-1 reads the last row in numpy, and anything at all in compiled code."""
    if "weights" in options:
        options = {"weights": options["weights"][: num_layers + 1]}
    relation = random_relation(backend=path)
    good = torch.tensor([0, 2])
    for bad, text in ((-1, "-1"), (U, str(U)), (10**12, str(10**12))):
        with pytest.raises(UsageError, match=f"user row {text} is outside the table of {U} rows") as caught:
            propagate(relation, *tables(), num_layers, at=(torch.tensor([0, bad]), good), **options)
        assert "\n" not in str(caught.value)
        assert ("leave rows of -1 out: they stand for a behavior that a user lacks" in str(caught.value)) == (bad < 0)
    for bad in (-1, I):
        with pytest.raises(UsageError, match=f"item row {bad} is outside the table of {I} rows"):
            propagate(relation, *tables(), num_layers, at=(good, torch.tensor([bad, 1])), **options)
    with pytest.raises(UsageError, match=r"user rows must be whole numbers \(N,\), not torch.float32 \(2,\)"):
        propagate(relation, *tables(), num_layers, at=(good.float(), good), **options)
    with pytest.raises(UsageError, match=r"item rows must be whole numbers \(N,\), not torch.int64 \(1, 2\)"):
        propagate(relation, *tables(), num_layers, at=(good, good[None]), **options)


def test_tables_that_do_not_fit_are_refused(path):
    relation = random_relation(backend=path)
    users, items = tables()
    for options in ({}, {"between": noise}, {"residual": True}):
        with pytest.raises(UsageError, match=rf"the relation has {U} users, the user table is \({U - 1}, {D}\)"):
            propagate(relation, users[1:], items, 2, **options)
        with pytest.raises(UsageError, match=rf"the relation has {I} items, the item table is \({I * D},\)"):
            propagate(relation, users, items.flatten(), 2, **options)


def test_errors_name_the_remedy():
    relation, both = random_relation(), tables()
    with pytest.raises(UsageError, match="num_layers must not be negative, got -1"):
        propagate(relation, *both, -1)
    with pytest.raises(UsageError, match="2 layers need 3 weights, one for layer 0 too, not 2"):
        propagate(relation, *both, 2, weights=(1.0, 1.0))
    with pytest.raises(UsageError, match="no residual with layer_norm; leave one of them out"):
        propagate(relation, *both, 2, residual=True, layer_norm=True)
    with pytest.raises(UnknownNameError, match="unknown row dtype 'bfloat'; did you mean 'bfloat16'"):
        propagate(relation, *both, 2, row_dtype="bfloat")
    with pytest.raises(UsageError, match="row_dtype=bfloat16 needs an even embedding_dim, got 3; choose an even one"):
        propagate(relation, *(table[:, :3] for table in both), 2, row_dtype="bfloat16")


def test_very_wide_rows_take_the_plain_pass(monkeypatch):
    """Kernels are compiled for a width; beyond the widest nothing is compiled."""
    monkeypatch.setattr("mbgraph._kernels.WIDEST", 4)
    monkeypatch.setattr("mbgraph._kernels.encode", None)
    relation = Relation([0, 1], [0, 0], 2, 1)
    users, items = propagate(relation, torch.ones(2, 5), torch.ones(1, 5), 1, weights=(0, 1))
    assert_close(items, torch.full((1, 5), 2**0.5))
    assert_close(users, torch.full((2, 5), 0.5**0.5))


def test_a_hop_is_layer_one_alone(path):
    relation = random_relation(backend=path)
    users, items = tables()
    to_users, to_items = operators(relation)
    made = hop(relation, users, items)
    assert_close(made[0].double(), to_users @ items.double(), atol=1e-5, rtol=1e-5)
    assert_close(made[1].double(), to_items @ users.double(), atol=1e-5, rtol=1e-5)
    both = rows_added((users, items), made, made)
    assert_close(both, (users + made[0] + made[0], items + made[1] + made[1]))
