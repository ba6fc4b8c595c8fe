"""Neighbour sums and LightGCN against dense matrices."""

import copy

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mbgraph._dgl import import_dgl
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.nn import BehaviorEncoder, LightGCN, kernels, relations
from mbgraph.nn.compiled import Workspace
from mbgraph.nn.rows import encode_rows

U, I, D = 37, 23, 8
BEHAVIORS = ("view", "buy")


def random_graph(seed=0, density=0.15):
    """Two behaviors over the same nodes; the last user and the last item have no edge."""
    rng = np.random.default_rng(seed)
    dense = {name: rng.random((U, I)) < density for name in BEHAVIORS}
    edges = {}
    for name, matrix in dense.items():
        matrix[-1], matrix[:, -1] = False, False
        matrix[0, 0] = True
        users, items = np.nonzero(matrix)
        edges["user", name, "item"] = (torch.from_numpy(users), torch.from_numpy(items))
    return import_dgl().heterograph(edges, num_nodes_dict={"user": U, "item": I}), dense


def dense_layers(matrix, users, items, num_layers, layer_norm):
    """Layers 0..L of both sides through the dense normalised adjacency of all U + I nodes, in float64."""
    adjacency = np.zeros((U + I, U + I))
    adjacency[:U, U:] = matrix
    adjacency[U:, :U] = matrix.T
    degree = adjacency.sum(1)
    scale = np.where(degree > 0, np.maximum(degree, 1) ** -0.5, 0)
    normalised = torch.from_numpy(scale[:, None] * adjacency * scale[None, :])
    layer = torch.cat([users, items])
    layers = [layer]
    for _ in range(num_layers):
        layer = normalised @ layer
        if layer_norm:
            layer = torch.nn.functional.normalize(layer)
        layers.append(layer)
    return layers


@pytest.mark.parametrize("backend", ["dgl", "torch"])
def test_neighbor_sum_is_the_dense_product_in_both_directions(backend):
    graph, dense = random_graph()
    relation = relations(graph, backend=backend)["view"]
    users, items = torch.randn(U, D), torch.randn(I, D)
    matrix = torch.from_numpy(dense["view"]).float()
    assert_close(relation.to_users(items), matrix @ items)
    assert_close(relation.to_items(users), matrix.T @ users)


def test_neighbor_sum_derives_twice():
    graph, _ = random_graph()
    relation = relations(graph)["view"]
    rows = torch.randn(I, 3, requires_grad=True)
    relation.user_scale = relation.user_scale.double()
    summed = relation.neighbor_sum(rows, "user")
    (first,) = torch.autograd.grad(summed.square().sum(), rows, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), rows)
    dense = torch.zeros(U, I)
    users, items = graph.edges(etype="view")
    dense[users, items] = 1
    gram = dense.T @ dense
    assert_close(first, 2 * gram @ rows)
    assert_close(second, 8 * gram @ gram @ rows, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("combine", ["sum", "mean"])
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_encoder_equals_dense_oracle(layer_norm, combine, num_layers):
    graph, dense = random_graph()
    encoder = BehaviorEncoder(graph, embedding_dim=D, num_layers=num_layers, layer_norm=layer_norm, combine=combine)
    tables = encoder.user_embedding.double(), encoder.item_embedding.double()
    for name, (users, items) in encoder().items():
        expected = sum(dense_layers(dense[name], *tables, num_layers, layer_norm))
        expected = expected / (num_layers + 1) if combine == "mean" else expected
        assert_close(torch.cat([users, items]).double(), expected, rtol=1e-5, atol=1e-6)


def test_one_hop_changes_the_output_and_isolated_nodes_keep_layer_zero():
    graph, _ = random_graph()
    encoder = BehaviorEncoder(graph, embedding_dim=D, num_layers=2)
    users, items = encoder()["view"]
    assert_close(users[-1], encoder.user_embedding[-1])
    assert_close(items[-1], encoder.item_embedding[-1])
    connected = graph.out_degrees(etype="view") > 0
    moved = (users - encoder.user_embedding).abs().amax(1)
    assert (moved[connected] > 0.1).all()


def test_two_by_two_by_hand():
    # u0 - i0, u0 - i1, u1 - i1: weights 1/sqrt(2), 1/2, 1/sqrt(2)
    graph = import_dgl().heterograph({("user", "buy", "item"): ([0, 0, 1], [0, 1, 1])})
    encoder = BehaviorEncoder(graph, embedding_dim=1, num_layers=1, layer_norm=False, combine="sum")
    with torch.no_grad():
        encoder.user_embedding.copy_(torch.tensor([[1.0], [2.0]]))
        encoder.item_embedding.copy_(torch.tensor([[3.0], [5.0]]))
    users, items = encoder()["buy"]
    root = 2**-0.5
    assert_close(users, torch.tensor([[1 + 3 * root + 5 / 2], [2 + 5 * root]]))
    assert_close(items, torch.tensor([[3 + 1 * root], [5 + 1 / 2 + 2 * root]]))


def reach(graph, conv, row_dtype, monkeypatch, compiled, repeats=1):
    """Return values at rows of two behaviors and gradients of both tables, by the hand-written pass."""
    monkeypatch.setattr(kernels, "available", compiled)
    both = list(relations(graph, ("view", "buy")).values())
    users, items, rows, weights = probes()
    out = encode_rows(
        both, users, items, *rows, conv.num_layers, conv.layer_norm, conv.weight, row_dtype, Workspace()
    )  # fmt: skip
    flat = [side for pair in out for side in pair]
    total = sum((w * e).sum() for w, e in zip(weights, flat, strict=True))
    for _ in range(repeats):
        gradients = torch.autograd.grad(total, [users, items], retain_graph=True)
    return flat, gradients


def probes():
    generator = torch.Generator().manual_seed(1)
    users = torch.randn(U, D, generator=generator, requires_grad=True)
    items = torch.randn(I, D, generator=generator, requires_grad=True)
    user_rows = [torch.tensor([5, 0, 5, U - 1, 7]), torch.tensor([1, 5])]
    item_rows = [torch.tensor([I - 1, 3, 3, 3, 0, 11]), torch.tensor([4, 4, 2])]
    weights = [torch.randn(count, D, generator=generator) for count in (5, 6, 2, 3)]
    return users, items, (user_rows, item_rows), weights


@pytest.fixture(params=["compiled", "plain"])
def compiled(request):
    if request.param == "compiled" and not kernels.available:
        pytest.skip("needs numba")
    return request.param == "compiled"


@pytest.fixture(params=["one block", "blocks"])
def blocks(request, monkeypatch):
    """Let the source table fit a core's cache, or be read in several blocks."""
    if request.param == "blocks":
        monkeypatch.setattr(kernels, "_cache_bytes", lambda: 5 * D * 2)
        monkeypatch.setattr(kernels, "_WORTHWHILE", 0)


def test_block_pointers_cut_every_row():
    indptr, indices = np.array([0, 3, 3, 5]), np.array([0, 4, 9, 4, 5], np.uint32)
    assert kernels.block_pointers(indptr, indices, 10, 1).tolist() == [[0, 3, 3], [3, 3, 5]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_WORTHWHILE", 0)
        patch.setattr(kernels, "_cache_bytes", lambda: 40)  # ten rows of four bytes fit
        assert len(kernels.block_pointers(indptr, indices, 10, 4)) == 2
        patch.setattr(kernels, "_cache_bytes", lambda: 39)  # three blocks: columns 0 to 2, 3 to 5, 6 to 9
        cuts = kernels.block_pointers(indptr, indices, 10, 4)
        assert cuts.tolist() == [[0, 3, 3], [1, 3, 3], [2, 3, 5], [3, 3, 5]]
        patch.setattr(kernels, "_WORTHWHILE", 5 / 6)  # enough for three rows in two blocks
        assert kernels.block_pointers(indptr, indices, 10, 4).tolist() == [[0, 3, 3], [2, 3, 4], [3, 3, 5]]
        patch.setattr(kernels, "_WORTHWHILE", 1)  # and too few for these
        assert len(kernels.block_pointers(indptr, indices, 10, 4)) == 2


@pytest.mark.parametrize(
    ("is_amd", "sizes", "expected"),
    [
        (False, {2: "1280K\n", 3: "32M\n"}, 1280 * 2**10),
        (True, {2: "512K\n", 3: "32768K\n"}, 2**24),  # half of the third level
        (False, {2: "64K\n"}, 2**18),
        (False, {2: "16M\n"}, 2**22),
        (True, {3: "1G\n"}, 2**20),  # a unit that no cache has
        (True, {3: "\n"}, 2**20),
        (False, {}, 2**20),
    ],
)
def test_the_cache_that_rows_come_from(is_amd, sizes, expected, monkeypatch, tmp_path):
    for level, size in sizes.items():
        (tmp_path / f"index{level}").mkdir()
        (tmp_path / f"index{level}" / "size").write_text(size)
    monkeypatch.setattr(kernels, "_CACHES", tmp_path)
    monkeypatch.setattr(kernels, "_is_amd", lambda: is_amd)
    assert kernels._cache_bytes.__wrapped__() == expected


def test_this_machine_has_such_a_cache():
    assert 2**18 <= kernels._cache_bytes.__wrapped__() <= 2**25


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
def test_hand_written_passes_equal_autograd(compiled, num_layers, layer_norm, monkeypatch):
    """Values and gradients at repeated rows of two behaviors equal those of the differentiable path."""
    graph, _ = random_graph(3)
    conv = LightGCN(num_layers, layer_norm=layer_norm, combine="mean")
    users, items, (user_rows, item_rows), weights = probes()
    expected = []
    for relation, chosen_users, chosen_items in zip(
        relations(graph, ("view", "buy")).values(), user_rows, item_rows, strict=True
    ):
        whole = conv(relation, users, items)
        expected += [whole[0][chosen_users], whole[1][chosen_items]]
    wanted = torch.autograd.grad(sum((w * e).sum() for w, e in zip(weights, expected, strict=True)), [users, items])

    made, got = reach(graph, conv, "float32", monkeypatch, compiled, repeats=2)  # the second backward finds all layers
    for mine, reference in zip((*made, *got), (*expected, *wanted), strict=True):
        # the isolated rows' gradient through normalisation is 0 here and never reaches a table there
        assert_close(mine, reference, rtol=1e-5, atol=1e-5 * float(reference.detach().abs().max()))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("layer_norm", [True, False])
def test_bfloat16_rows_round_alike_and_little(layer_norm, monkeypatch):
    """Both passes round the same numbers; what comes out differs from float32 by a few parts in a thousand."""
    if not kernels.available:
        pytest.skip("needs numba")
    graph, _ = random_graph(3)
    conv = LightGCN(3, layer_norm=layer_norm, combine="sum")
    exact = reach(graph, conv, "float32", monkeypatch, True)
    packed = reach(graph, conv, "bfloat16", monkeypatch, True)
    rounded = reach(graph, conv, "bfloat16", monkeypatch, False)
    for mine, other, reference in zip(*((*values, *grads) for values, grads in (packed, rounded, exact)), strict=True):
        size = float(reference.detach().abs().max())
        assert 1e-6 * size < float((mine - reference).detach().abs().max()) < 1e-2 * size
        # a sum on the edge between two bfloat16 numbers may fall to either side: rare, so the mean hardly moves
        assert float((mine - other).detach().abs().mean()) < 3e-4 * size


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_encoding_without_gradients_is_the_same(compiled, num_layers, layer_norm, monkeypatch):
    monkeypatch.setattr(kernels, "available", compiled)
    graph, _ = random_graph(3)
    encoder = BehaviorEncoder(graph, embedding_dim=D, num_layers=num_layers, layer_norm=layer_norm, padding=1)
    expected = encoder()
    for _ in range(2):  # the second time in memory that was used before
        with torch.no_grad():
            made = encoder()
        for behavior, sides in expected.items():
            for mine, reference in zip(made[behavior], sides, strict=True):
                assert not mine.requires_grad
                assert_close(mine, reference.detach(), rtol=1e-5, atol=1e-6)


def test_packing_is_torch_s_rounding():
    if not kernels.available:
        pytest.skip("needs numba")
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-3, 3)
    rows[0] = torch.tensor([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -0.0, 1 - 2**-9, 3e38])  # ties to even
    packed = np.empty((50, 3), np.uint32)
    kernels.width_kernels(6).pack(0, 50, rows.numpy(), packed)
    assert torch.equal(torch.from_numpy(kernels.unpack_rows(packed)), rows.bfloat16().float())


def test_a_step_takes_the_memory_of_the_one_before():
    if not kernels.available:
        pytest.skip("needs numba")
    graph, _ = random_graph(3)
    encoder = BehaviorEncoder(graph, embedding_dim=D, num_layers=2)
    rows = {name: torch.tensor([0, 1]) for name in BEHAVIORS}
    sizes = []
    for _ in range(3):
        loss = sum(side.sum() for pair in encoder.rows(rows, rows).values() for side in pair)
        loss.backward()
        del loss
        sizes.append({block: len(free) for block, free in encoder._workspace._free.items()})
    assert sizes[0] == sizes[1] == sizes[2] != {}
    assert not copy.deepcopy(encoder)._workspace._free


def test_no_edge_sized_float_tensor_on_the_graph():
    graph, _ = random_graph()
    encoder = BehaviorEncoder(graph, embedding_dim=D, num_layers=2)
    encoder()
    assert all(not encoder.relations[name].graph.edata for name in BEHAVIORS)
    assert not graph.edata["view"] if "view" in graph.edata else True


def test_padding_nodes_come_last_and_stay_at_layer_zero():
    graph, _ = random_graph()
    encoder = BehaviorEncoder(graph, embedding_dim=D, num_layers=2, padding=1)
    users, items = encoder()["view"]
    assert users.shape == (U + 1, D)
    assert items.shape == (I + 1, D)
    assert_close(users[-1], encoder.user_embedding[-1])


def test_encoder_takes_another_graph_over_the_same_nodes():
    graph, _ = random_graph(0)
    other, _ = random_graph(5)
    encoder = BehaviorEncoder(graph, embedding_dim=D, num_layers=2)
    fresh = BehaviorEncoder(other, embedding_dim=D, num_layers=2)
    fresh.load_state_dict(encoder.state_dict())
    assert_close(encoder(other)["view"][0], fresh()["view"][0])
    assert not torch.equal(encoder(other)["view"][0], encoder()["view"][0])


def test_init_depends_on_rng_alone():
    graph, _ = random_graph()
    tables = [BehaviorEncoder(graph, embedding_dim=D, rng=seed).user_embedding for seed in (1, 1, 2)]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


def test_works_on_any_node_types():
    graph = import_dgl().heterograph({("reader", "opens", "book"): ([0, 1], [1, 0])})
    users, items = BehaviorEncoder(graph, embedding_dim=2, num_layers=1)()["opens"]
    assert users.shape == items.shape == (2, 2)


def test_errors_name_the_remedy():
    graph, _ = random_graph()
    with pytest.raises(UnknownNameError, match="unknown behavior 'vew'; did you mean 'view'"):
        relations(graph, ("vew",))
    with pytest.raises(UnknownNameError, match="propagation backend"):
        relations(graph, backend="cuda")
    with pytest.raises(UnknownNameError, match="layer combination"):
        LightGCN(2, combine="max")
    with pytest.raises(UsageError, match="num_layers must not be negative"):
        LightGCN(-1)
    with pytest.raises(UsageError, match="needs 23 item rows, not 3"):
        relations(graph)["view"].to_users(torch.zeros(3, 2))
    mixed = import_dgl().heterograph({("user", "a", "item"): ([0], [0]), ("item", "b", "user"): ([0], [0])})
    with pytest.raises(UsageError, match="must share one source"):
        relations(mixed)
    small = import_dgl().heterograph({("user", name, "item"): ([0], [0]) for name in BEHAVIORS})
    with pytest.raises(UsageError, match="encode a graph over the same nodes"):
        BehaviorEncoder(graph, embedding_dim=2)(small)
