"""LightGCN and the encoder of several behaviors: dense oracles, foreign graphs, copies, compiled graphs, memory."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mbgraph._dgl import import_dgl
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.nn import BehaviorEncoder, LightGCN, Relation, Relations
from mbgraph.testing.recommenders import COMPILING_TORCH

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
        edges["user", name, "item"] = tuple(map(torch.from_numpy, np.nonzero(matrix)))
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


@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("combine", ["sum", "mean"])
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_the_encoder_and_its_gradients_equal_the_dense_oracle(num_layers, combine, layer_norm, is_compiled):
    graph, dense = random_graph()
    encoder = BehaviorEncoder(graph, BEHAVIORS, embedding_dim=D, num_layers=num_layers, layer_norm=layer_norm,
                              combine=combine, backend="auto" if is_compiled else "torch")  # fmt: skip
    exact = [table.detach().double().requires_grad_() for table in encoder.tables]
    with torch.no_grad():
        bare = encoder()
    made = encoder()
    assert tuple(made) == BEHAVIORS
    total, wanted = 0.0, 0.0
    for name, (users, items) in made.items():
        expected = sum(dense_layers(dense[name], *exact, num_layers, layer_norm))
        expected = expected / (num_layers + 1) if combine == "mean" else expected
        assert_close(torch.cat([users, items]).double(), expected, rtol=1e-5, atol=1e-6)
        assert_close(torch.cat(bare[name]), torch.cat([users, items]), rtol=1e-5, atol=1e-6)
        total, wanted = total + torch.cat([users, items]).square().sum(), wanted + expected.square().sum()
    for mine, reference in zip(
        torch.autograd.grad(total, encoder.tables), torch.autograd.grad(wanted, exact), strict=True
    ):
        assert_close(mine.double(), reference, rtol=0, atol=1e-5 * float(reference.abs().max()))


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


def test_lightgcn_takes_a_graph_of_one_behavior():
    """As a GNN author expects it: any graph of one edge type, two tables, at all rows or at some."""
    graph, dense = random_graph()
    users, items = torch.randn(U, D), torch.randn(I, D)
    expected = sum(dense_layers(dense["buy"], users.double(), items.double(), 2, False)) / 3
    conv = LightGCN(2)
    alone = import_dgl().heterograph(
        {("reader", "opens", "book"): graph.edges(etype="buy")}, num_nodes_dict={"reader": U, "book": I}
    )
    for given in (graph["user", "buy", "item"], alone, Relations.of(alone), Relations.of(graph)["buy"]):
        made = conv(given, users, items)
        assert_close(torch.cat(made).double(), expected, rtol=1e-5, atol=1e-6)
    at = (torch.tensor([4, 0, 4]), torch.tensor([1]))
    for mine, whole, rows in zip(conv(alone, users, items, at), made, at, strict=True):
        assert_close(mine, whole[rows])
    with pytest.raises(UsageError, match=r"needs a graph of one behavior, .*slice it: graph\['user', 'buy', 'item'\]"):
        conv(graph, users, items)
    with pytest.raises(UsageError, match="cannot read behaviors of a dict; give a DGL heterograph"):
        conv({"buy": ([0], [0])}, users, items)
    assert repr(conv) == "LightGCN(num_layers=2, layer_norm=False, combine='mean')"


@pytest.fixture
def purchases():
    """A graph of one behavior with tables for both sides: graph, (U, D), (I, D)."""
    graph, _ = random_graph()
    part = import_dgl().heterograph({("user", "buy", "item"): graph.edges(etype="buy")})
    return part, torch.randn(part.num_nodes("user"), D), torch.randn(part.num_nodes("item"), D)


def test_lightgcn_reads_a_graph_once(purchases, monkeypatch):
    read = []
    real = Relations.of.__func__
    monkeypatch.setattr(Relations, "of", classmethod(lambda cls, *rest: read.append(1) or real(cls, *rest)))
    for _ in range(3):
        LightGCN(1)(*purchases)
    assert len(read) == 1


def test_lightgcn_reads_a_graph_again_when_edges_are_added(purchases):
    part, users, items = purchases
    if not hasattr(part, "add_edges"):
        pytest.skip("mbgraph's own heterograph does not change in place")
    before, _ = LightGCN(1)(part, users, items)
    sources, destinations = part.edges()
    absent = int((~torch.isin(torch.arange(len(items)), destinations[sources == 0])).nonzero()[0])
    part.add_edges([0], [absent])  # in place
    after, _ = LightGCN(1)(part, users, items)
    assert not torch.equal(after[0], before[0])


def rows_of(seed=0):
    """Rows by name for every behavior; some repeat, one list is empty."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(count, size):
        return torch.randint(count, (size,), generator=generator)

    users = {"view": {"anchor": drawn(U, 6), "own": drawn(U, 3)}, "buy": {"anchor": drawn(U, 6)}}
    items = {
        "view": {"positive": drawn(I, 5), "nobody": drawn(I, 0)},
        "buy": {"positive": drawn(I, 4), "negative": drawn(I, 7)},
    }
    return users, items


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_a_named_gather_is_rows_of_the_whole(backend):
    graph, _ = random_graph()
    encoder = BehaviorEncoder(graph, BEHAVIORS, embedding_dim=D, num_layers=2, padding=1, backend=backend)
    users, items = rows_of()
    found, whole = encoder.at(users, items), encoder()
    assert tuple(found) == BEHAVIORS
    total, wanted = 0.0, 0.0
    for name, at in found.items():
        for made, rows, table in ((at.users, users[name], whole[name][0]), (at.items, items[name], whole[name][1])):
            assert list(made) == list(rows)
            for key, chosen in rows.items():
                assert_close(made[key], table[chosen], rtol=1e-5, atol=1e-6)
                total, wanted = total + made[key].square().sum(), wanted + table[chosen].square().sum()
    for mine, reference in zip(
        torch.autograd.grad(total, encoder.tables), torch.autograd.grad(wanted, encoder.tables), strict=True
    ):
        assert_close(mine, reference, rtol=0, atol=1e-5 * float(reference.abs().max()))


def test_a_row_of_minus_one_is_refused():
    graph, _ = random_graph()
    encoder = BehaviorEncoder(graph, BEHAVIORS, embedding_dim=D, num_layers=2)
    users, items = rows_of()
    items["buy"]["negative"][2] = -1
    with pytest.raises(UsageError, match="item row -1 is outside the table of 23 rows; leave rows of -1 out"):
        encoder.at(users, items)


def test_padding_nodes_come_last_and_stay_at_layer_zero():
    graph, _ = random_graph()
    encoder = BehaviorEncoder(graph, embedding_dim=D, num_layers=2, padding=1)
    users, items = encoder()["view"]
    assert users.shape == (U + 1, D)
    assert items.shape == (I + 1, D)
    assert_close(users[-1], encoder.user_embedding[-1])


def test_the_encoder_takes_another_graph_over_the_same_nodes():
    graph, _ = random_graph(0)
    other, _ = random_graph(5)
    encoder = BehaviorEncoder(graph, embedding_dim=D, num_layers=2, padding=1)
    fresh = BehaviorEncoder(other, embedding_dim=D, num_layers=2, padding=1)
    fresh.load_state_dict(encoder.state_dict())
    assert_close(encoder(other)["view"][0], fresh()["view"][0])
    assert not torch.equal(encoder(other)["view"][0], encoder()["view"][0])
    small = import_dgl().heterograph({("user", name, "item"): ([0], [0]) for name in BEHAVIORS})
    with pytest.raises(UsageError, match=r"the graph has 2 users and 2 items, .*encode a graph over the same nodes"):
        encoder(small)


def test_init_depends_on_rng_alone():
    graph, _ = random_graph()
    tables = [BehaviorEncoder(graph, embedding_dim=D, rng=seed).user_embedding for seed in (1, 1, 2)]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    wide = BehaviorEncoder(graph, embedding_dim=512, init_std=0.02, rng=1).user_embedding
    assert wide.std().item() == pytest.approx(0.02, rel=0.05)


def test_works_on_any_node_types():
    graph = import_dgl().heterograph({("reader", "opens", "book"): ([0, 1], [1, 0])})
    users, items = BehaviorEncoder(graph, embedding_dim=2, num_layers=1)()["opens"]
    assert users.shape == items.shape == (2, 2)


# --- copies, compiled graphs, memory --------------------------------------------------------------------------------


def trained(backend="auto", steps=2, num_layers=2):
    graph, _ = random_graph(density=0.5)
    encoder = BehaviorEncoder(graph, BEHAVIORS, embedding_dim=D, num_layers=num_layers, backend=backend)
    optimizer = torch.optim.Adam(encoder.parameters())
    for _ in range(steps):
        made = encoder.at(*rows_of())
        loss = sum(rows.square().sum() for at in made.values() for side in at for rows in side.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        encoder()
    return encoder


@pytest.mark.parametrize("backend", ["auto", "torch", "dgl"])
@pytest.mark.parametrize("steps", [0, 2])
def test_copies_encode_alike_before_and_after_training(backend, steps):
    encoder = trained(backend, steps)
    buffer = io.BytesIO()
    torch.save(encoder, buffer)
    buffer.seek(0)
    twins = [copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder)), torch.load(buffer, weights_only=False)]
    expected = encoder()
    for twin in twins:
        for name, pair in twin().items():
            for mine, reference in zip(pair, expected[name], strict=True):
                assert torch.equal(mine, reference)
        with torch.no_grad():
            twin.user_embedding.zero_()  # tables of its own
    assert encoder.user_embedding.any()


@pytest.mark.skipif(torch.__version__ < COMPILING_TORCH, reason="earlier torch breaks the graph at mappings")
def test_torch_compiles_the_encoder_without_breaks():
    graph, _ = random_graph()
    encoder = BehaviorEncoder(graph, BEHAVIORS, embedding_dim=D, num_layers=2)
    users, items = rows_of()

    def loss(encoder):
        whole = sum(rows.square().sum() for pair in encoder().values() for rows in pair)
        return whole + sum(
            rows.sin().sum() for at in encoder.at(users, items).values() for s in at for rows in s.values()
        )

    expected = loss(encoder)
    wanted = torch.autograd.grad(expected, encoder.tables)
    torch._dynamo.reset()
    made = torch.compile(loss, fullgraph=True, dynamic=False, backend="aot_eager")(encoder)
    assert_close(made, expected, rtol=1e-5, atol=1e-5)
    for mine, reference in zip(torch.autograd.grad(made, encoder.tables), wanted, strict=True):
        assert_close(mine, reference, rtol=0, atol=1e-5 * float(reference.abs().max()))


def floats(value, seen=None):
    """Yield every array of real numbers that is reachable from a value, and where it hangs."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value.numel(), tuple(value.shape)
    elif isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            yield value.size, value.shape
    elif isinstance(value, dict):
        for entry in value.values():
            yield from floats(entry, seen)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from floats(entry, seen)
    elif hasattr(value, "edata"):  # a DGL graph
        yield from floats([dict(value.ndata), dict(value.edata)], seen)
    elif hasattr(value, "__dict__"):
        yield from floats(vars(value), seen)


@pytest.mark.parametrize("path", ["compiled", "plain"])
def test_no_edge_sized_float_tensor_stays_with_a_relation(path, monkeypatch):
    """Degree factors live on nodes. Every view that training makes is walked, whatever it is called."""
    if path == "plain":
        monkeypatch.setattr("mbgraph._kernels.available", False)
    encoder = trained()
    for relation in encoder.relations.values():
        assert relation.num_edges > 5 * (U + I)
        relation.union(relation)
        relation.propagate(torch.randn(I, D), "user")
        relation.weighted_sum(torch.randn(I, D), torch.randn(relation.num_edges), "user")
        assert len(relation._cache) > 3
        found = list(floats(relation))
        assert len(found) >= 4  # the factors of both sides
        assert max(size for size, _ in found) == U
    planted = Relation([0, 1], [1, 0], 2, 2)
    planted._cache["deep"] = [{"inside": (torch.ones(7),)}]
    assert (7, (7,)) in list(floats(planted))


def test_errors_name_the_remedy():
    graph, _ = random_graph()
    with pytest.raises(UnknownNameError, match="unknown layer combination 'max'"):
        LightGCN(2, combine="max")
    with pytest.raises(UsageError, match="num_layers must not be negative, got -1"):
        LightGCN(-1)
    with pytest.raises(UsageError, match="embedding_dim must be positive, got 0"):
        BehaviorEncoder(graph, embedding_dim=0)
    with pytest.raises(UsageError, match="row_dtype=bfloat16 needs an even embedding_dim, got 5; choose an even one"):
        BehaviorEncoder(graph, embedding_dim=5, row_dtype="bfloat16")
    with pytest.raises(UnknownNameError, match="unknown propagation backend 'cuda'"):
        BehaviorEncoder(graph, backend="cuda")
    with pytest.raises(UnknownNameError, match="unknown behavior 'vew'; did you mean 'view'"):
        BehaviorEncoder(graph, ("vew",))
    mixed = import_dgl().heterograph({("user", "a", "item"): ([0], [0]), ("item", "b", "user"): ([0], [0])})
    with pytest.raises(UsageError, match="must share one source"):
        BehaviorEncoder(mixed)


def test_the_seed_is_0_by_default(tiny):
    one, two = (BehaviorEncoder(tiny.graph, embedding_dim=4, num_layers=1, **seed) for seed in ({}, {"rng": 0}))
    for mine, other in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(mine, other)
