"""The compiled pass against the plain one: blocks, threads, bfloat16 rows, derivatives, memory."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mbgraph import _kernels
from mbgraph._kernels import Workspace, rows
from mbgraph.nn import BehaviorEncoder, Relation, Relations, propagate_each
from mbgraph.nn.lightgcn import layer_weights

pytestmark = pytest.mark.skipif(not _kernels.available, reason="needs numba")

U, I, D = 37, 23, 8
AT = [
    (torch.tensor([5, 0, 5, U - 1, 7]), torch.tensor([I - 1, 3, 3, 3, 0, 11])),
    (torch.tensor([1, 5]), torch.tensor([4, 4, 2])),
]


def random_relations(seed=3, density=0.15):
    """Two relations over the same nodes; the last user and the last item have no edge."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in AT:
        matrix = rng.random((U, I)) < density
        matrix[-1], matrix[:, -1] = False, False
        matrix[0, 0] = True
        made.append(Relation(*np.nonzero(matrix), U, I))
    return made


@pytest.fixture(params=["one block", "blocks"])
def blocks(request, monkeypatch):
    """Let the source table fit a core's cache, or be read in several blocks."""
    if request.param == "blocks":
        monkeypatch.setattr(rows, "_cache_bytes", lambda: 5 * D * 2)
        monkeypatch.setattr(rows, "_WORTHWHILE", 0)


@pytest.fixture(params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def tables():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(count, D, generator=generator, requires_grad=True) for count in (U, I))


def reach(relations, both, options, at=AT, repeats=1):
    """Return values at rows of two relations, gradients of both tables, and derivatives of those."""
    found = propagate_each(relations, *both, at=at, **options)
    flat = [rows for pair in found for rows in pair]
    generator = torch.Generator().manual_seed(2)
    probes = [torch.randn(rows.shape, generator=generator) for rows in flat]
    total = sum((probe * rows).sum() for probe, rows in zip(probes, flat, strict=True))
    total = total + sum(rows.square().sum() for rows in flat)
    for _ in range(repeats):
        first = torch.autograd.grad(total, both, retain_graph=True)
    again = torch.autograd.grad(total, both, create_graph=True)
    second = torch.autograd.grad(sum(rows.square().sum() for rows in again), both)
    return [*flat, *first, *again, *second]


def plainly(monkeypatch, *arguments, **options):
    with monkeypatch.context() as patch:
        patch.setattr("mbgraph._kernels.available", False)
        return reach(*arguments, **options)


@pytest.mark.usefixtures("blocks", "threads")
@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_the_compiled_pass_is_the_plain_one(num_layers, layer_norm, combine, monkeypatch):
    """Values, gradients (twice: the second backward finds all layers) and derivatives of gradients."""
    relations, both = random_relations(), tables()
    options = {"num_layers": num_layers, "layer_norm": layer_norm, "weights": layer_weights(combine, num_layers)}
    expected = plainly(monkeypatch, relations, both, options)
    for mine, reference in zip(reach(relations, both, options, repeats=2), expected, strict=True):
        assert_close(mine, reference, rtol=1e-5, atol=1e-5 * float(reference.detach().abs().max()))


@pytest.mark.parametrize("weights", [(0.0, 1.0, 0.0, 2.0), (0.5, 0.0, 0.0, -1.0), (1.0, 3.0, 0.0, 0.0)])
@pytest.mark.parametrize("at", [AT, None], ids=["rows", "whole"])
def test_any_weights_of_layers(weights, at, monkeypatch):
    relations, both = random_relations(), tables()
    options = {"num_layers": 3, "layer_norm": True, "weights": weights}
    expected = plainly(monkeypatch, relations, both, options, at=at)
    for mine, reference in zip(reach(relations, both, options, at=at), expected, strict=True):
        assert_close(mine, reference, rtol=1e-5, atol=1e-5 * float(reference.detach().abs().max()))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("layer_norm", [True, False])
def test_bfloat16_rows_round_alike_and_little(layer_norm, monkeypatch):
    """Both passes round the same numbers; what comes out differs from float32 by a few parts in a thousand."""
    relations, both = random_relations(), tables()
    options = {"num_layers": 3, "layer_norm": layer_norm, "weights": (1.0,) * 4}
    exact = reach(relations, both, options)[:6]
    packed = reach(relations, both, {**options, "row_dtype": "bfloat16"})[:6]
    rounded = plainly(monkeypatch, relations, both, {**options, "row_dtype": "bfloat16"})[:6]
    for mine, other, reference in zip(packed, rounded, exact, strict=True):
        size = float(reference.detach().abs().max())
        assert 1e-6 * size < float((mine - reference).detach().abs().max()) < 1e-2 * size
        # a sum on the edge between two bfloat16 numbers may fall to either side: rare, so the mean hardly moves
        assert float((mine - other).detach().abs().mean()) < 3e-4 * size


@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_bfloat16_rounds_what_neighbours_read_and_nothing_else(layer_norm, is_compiled, monkeypatch):
    """By hand for two layers, forward and backward; the tables, the last layer and all sums stay float32."""
    monkeypatch.setattr("mbgraph._kernels.available", is_compiled)
    (relation, _), (users, items) = random_relations(), tables()
    matrix = torch.zeros(U, I)
    matrix[relation.users, relation.items] = 1
    send = [relation.send(side) for side in ("user", "item")]
    short = lambda rows: rows.detach().bfloat16().float()  # noqa: E731
    unit = torch.nn.functional.normalize

    def finish(side, summed):
        return unit(summed) if layer_norm else relation.receive(side) * summed

    one = finish("user", matrix @ (send[1] * short(items))), finish("item", matrix.T @ (send[0] * short(users)))
    two = finish("user", matrix @ (send[1] * short(one[1]))), finish("item", matrix.T @ (send[0] * short(one[0])))
    options = {"num_layers": 2, "layer_norm": layer_norm, "weights": (1.0, 1.0, 1.0), "row_dtype": "bfloat16"}
    everyone = [(torch.arange(U), torch.arange(I))]
    ((made_users, made_items),) = propagate_each([relation], users, items, at=everyone, **options)
    for made, table, first, last in zip((made_users, made_items), (users, items), one, two, strict=True):
        gap = (made - (table + short(first) + last)).detach().abs()
        # a sum on the edge between two bfloat16 numbers may fall to either side, here and in the layer above
        assert float(gap.median()) < 1e-6
        assert float(gap.mean()) < 1e-4

    # backward by hand, for outputs weighted by a probe
    generator = torch.Generator().manual_seed(4)
    probe = torch.randn(U, D, generator=generator), torch.randn(I, D, generator=generator)
    got = torch.autograd.grad((made_users * probe[0]).sum() + (made_items * probe[1]).sum(), (users, items))

    def unfinish(side, summed, gradient):
        if not layer_norm:
            return relation.receive(side) * gradient
        rows = summed.detach().clone().requires_grad_()
        return torch.autograd.grad(unit(rows), rows, gradient)[0]

    summed_one = matrix @ (send[1] * short(items)), matrix.T @ (send[0] * short(users))
    summed_two = matrix @ (send[1] * short(one[1])), matrix.T @ (send[0] * short(one[0]))
    above = [short(unfinish(side, summed_two[n], probe[n])) for n, side in enumerate(("user", "item"))]
    middle = probe[0] + send[0] * (matrix @ above[1]), probe[1] + send[1] * (matrix.T @ above[0])
    below = [short(unfinish(side, summed_one[n], middle[n])) for n, side in enumerate(("user", "item"))]
    expected = probe[0] + send[0] * (matrix @ below[1]), probe[1] + send[1] * (matrix.T @ below[0])
    for mine, reference in zip(got, expected, strict=True):
        # sums on the edge between two bfloat16 numbers may fall to either side: one in a thousand, by 2 ** -9 of it
        assert float((mine - reference).abs().mean()) < 2e-4 * float(reference.abs().max())
        exact = torch.tensor(0.003) * reference.abs().max()
        assert float((mine - reference).abs().max()) < exact


@pytest.mark.usefixtures("blocks", "threads")
@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_encoding_without_gradients_is_the_same(num_layers, layer_norm):
    relations = Relations(dict(zip("ab", random_relations(), strict=True)))
    encoder = BehaviorEncoder(relations, embedding_dim=D, num_layers=num_layers, layer_norm=layer_norm, padding=1)
    expected = encoder()
    for _ in range(2):  # the second time in memory that was used before
        with torch.no_grad():
            made = encoder()
        for behavior, sides in expected.items():
            for mine, reference in zip(made[behavior], sides, strict=True):
                assert not mine.requires_grad
                assert_close(mine, reference.detach(), rtol=1e-5, atol=1e-6)


def test_a_step_takes_the_memory_of_the_one_before():
    relations = Relations(dict(zip("ab", random_relations(), strict=True)))
    encoder = BehaviorEncoder(relations, embedding_dim=D, num_layers=2)
    named = {name: {"all": torch.tensor([0, 1])} for name in "ab"}
    sizes = []
    for _ in range(3):
        made = encoder.at(named, named)
        loss = sum(rows.sum() for at in made.values() for side in at for rows in side.values())
        loss.backward()
        del loss, made
        sizes.append({block: len(free) for block, free in encoder._space._free.items()})
    assert sizes[0] == sizes[1] == sizes[2] != {}
    assert not copy.deepcopy(encoder)._space._free
    assert not pickle.loads(pickle.dumps(encoder))._space._free


def test_memory_that_is_taken_starts_at_a_cache_line_and_is_nobody_else_s():
    space = Workspace()
    arrays = [space.take((5, 3), "float32") for _ in range(4)]
    for number, array in enumerate(arrays):
        assert array.ctypes.data % 64 == 0
        array[:] = number
    assert [array.max() for array in arrays] == [array.min() for array in arrays] == [0, 1, 2, 3]
    taken = arrays[2].ctypes.data
    space.give(arrays[2])
    assert space.take((15,), "float32").ctypes.data == taken
    assert space.take((0, 3), "float32").shape == (0, 3)
