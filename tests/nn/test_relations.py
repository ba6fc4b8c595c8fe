"""Relations read from every kind of graph: their order, what is left out, and what is refused."""

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mbgraph._dgl import import_dgl
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.nn import Relation, Relations

EDGES = {"view": ([0, 0, 1, 2], [0, 1, 2, 2]), "cart": ([0, 2], [1, 2]), "buy": ([0, 1], [0, 2])}
SIZES = {"user": 4, "item": 3}


def dgl_graph(edges=EDGES, ends=("user", "item"), sizes=SIZES):
    """Make a DGL heterograph of edge types between two node types; the last nodes of both have no edge."""
    types = {(ends[0], name, ends[1]): tuple(map(torch.tensor, pair)) for name, pair in edges.items()}
    return import_dgl().heterograph(types, num_nodes_dict=dict(zip(ends, sizes.values(), strict=True)))


class HeteroData:
    """As much of PyG's class of that name as is read."""

    def __init__(self, edges=EDGES, ends=("user", "item"), sizes=SIZES, **extra):
        self.stores = {
            (ends[0], name, ends[1]): {"edge_index": torch.tensor(pair), **extra} for name, pair in edges.items()
        }
        self.nodes = {end: SimpleNamespace(num_nodes=size) for end, size in zip(ends, sizes.values(), strict=True)}

    @property
    def edge_types(self):
        return list(self.stores)

    @property
    def edge_index_dict(self):
        return {name: store["edge_index"] for name, store in self.stores.items()}

    def __getitem__(self, key):
        return self.stores[key] if isinstance(key, tuple) else self.nodes[key]


def cells(relation):
    return sorted(zip(relation.users.tolist(), relation.items.tolist(), strict=True))


def check(relations, names):
    assert tuple(relations) == names
    assert (relations.num_users, relations.num_items) == (4, 3)
    for name in names:
        assert cells(relations[name]) == sorted(zip(*EDGES[name], strict=True))


@pytest.mark.parametrize("ends", [("user", "item"), ("reader", "book")])
@pytest.mark.parametrize("make", [dgl_graph, HeteroData])
def test_every_kind_of_graph_with_any_node_types(make, ends):
    graph = make(ends=ends)
    check(Relations.of(graph, ("view", "cart", "buy"), "buy"), ("view", "cart", "buy"))
    check(Relations.of(graph, ("cart", "view")), ("cart", "view"))
    found = Relations.of(graph, target="cart")
    check(found, (*sorted({"view", "buy"}, key=list(Relations.of(graph)).index), "cart"))
    assert (found.target, found.auxiliary) == ("cart", tuple(found)[:2])


def test_relations_are_taken_as_they_are():
    given = Relations.of(dgl_graph(), ("view", "cart", "buy"))
    check(Relations.of(given, target="cart"), ("view", "buy", "cart"))
    check(Relations.of(given, ("buy", "view")), ("buy", "view"))
    assert Relations.of(given)["view"] is given["view"]


def test_the_order_is_the_dataset_s_or_the_one_that_is_named(tiny):
    ordered = tiny.replace(edges={name: tiny.edges[name] for name in ("cart", "view", "buy")})
    found = Relations.of(ordered.graph, target="buy")
    assert tuple(found) == ("cart", "view", "buy")  # DGL itself says buy, cart, view
    assert found.has_order
    assert not Relations.of(dgl_graph()).has_order
    named = Relations.of(dgl_graph(), ("view", "cart", "buy"))
    assert named.has_order
    for derived in (named.select(("cart", "buy")), named.replace(norm="left"), named.padded(1), Relations.of(named)):
        assert derived.has_order
    assert not Relations.of(Relations.of(dgl_graph())).has_order
    assert Relations.of(Relations.of(dgl_graph()), ("view", "buy")).has_order


def test_reverse_types_are_no_behaviors():
    edges = {("user", name, "item"): pair for name, pair in EDGES.items()}
    edges |= {("item", f"rev_{name}", "user"): pair[::-1] for name, pair in EDGES.items()}
    graph = import_dgl().heterograph(edges, num_nodes_dict=SIZES)
    check(Relations.of(graph, target="buy"), ("cart", "view", "buy"))
    with pytest.raises(UsageError, match="must share one source and one destination node type"):
        Relations.of(graph, ("view", "rev_view"))


def test_other_edge_types_beside_the_behaviors():
    edges = {("user", name, "item"): pair for name, pair in EDGES.items()}
    edges["user", "follows", "user"] = ([0, 1], [1, 2])
    graph = import_dgl().heterograph(edges, num_nodes_dict=SIZES)
    graph.edata["w"] = {("user", "follows", "user"): torch.ones(2)}  # nobody reads these
    check(Relations.of(graph, ("view", "buy"), "buy"), ("view", "buy"))
    with pytest.raises(
        UsageError, match=r"must share one source .*pass behaviors=\(...\) with the edge types that lead"
    ):
        Relations.of(graph)


def test_two_edge_types_of_one_name():
    """DGL tells them apart by their node types; a behavior is a name."""
    edges = {("user", name, "item"): pair for name, pair in EDGES.items()}
    edges["user", "view", "shop"] = ([0, 1], [1, 0])
    graph = import_dgl().heterograph(edges, num_nodes_dict={**SIZES, "shop": 2})
    check(Relations.of(graph, ("cart", "buy"), "buy"), ("cart", "buy"))
    with pytest.raises(UsageError, match="several edge types of the graph are called 'view', .*rename one of them"):
        Relations.of(graph, ("view", "buy"))


@pytest.mark.parametrize("make", [dgl_graph, HeteroData])
def test_edge_data_that_nobody_reads_is_refused(make):
    def with_data(name):
        if make is HeteroData:
            return HeteroData({"view": EDGES["view"]}, **{name: torch.arange(4.0)})
        graph = dgl_graph({"view": EDGES["view"]})
        graph.edata[name] = torch.arange(4.0)
        return graph

    assert Relations.of(with_data("time"))["view"].time.tolist() == [0, 1, 2, 3]
    for name in ("weight", "rating"):
        with pytest.raises(UsageError, match=f"edges of 'view' carry '{name}', which no model reads; remove it"):
            Relations.of(with_data(name))


@pytest.mark.parametrize("make", [dgl_graph, HeteroData])
def test_an_edge_that_stands_twice_is_refused(make):
    with pytest.raises(UsageError, match="an edge of 'view' stands twice, item 2; keep one of each"):
        Relations.of(make({"view": ([0, 1, 0, 1], [0, 2, 1, 2])}))
    neighbours = Relations.of(make({"view": ([0, 1, 2], [2, 2, 2])}))  # one item of several users is none
    assert neighbours["view"].num_edges == 3


def test_sets_of_behaviors():
    found = Relations.of(dgl_graph(), ("view", "cart", "buy"))
    union = {cell for name in EDGES for cell in cells(found[name])}
    assert cells(found.union()) == sorted(union)
    assert cells(found.union("cart", "buy")) == sorted({*cells(found["cart"]), *cells(found["buy"])})
    assert cells(found.meet("view", "buy")) == [(0, 0), (1, 2)]
    assert cells(found.minus("view", "buy")) == [(0, 1), (2, 2)]


def test_padding_and_replacing_change_every_relation():
    found = Relations.of(dgl_graph(), ("view", "cart", "buy"), "buy")
    padded = found.padded(2)
    assert (padded.num_users, padded.num_items, padded.target) == (6, 5, "buy")
    assert [cells(padded[name]) for name in padded] == [cells(found[name]) for name in found]
    assert padded["view"].degree("user").tolist() == [2, 1, 1, 0, 0, 0]
    assert found.padded(0) is found
    assert {relation.norm for relation in found.replace(norm="left").values()} == {"left"}
    assert found.select(("buy", "view")).target == "buy"
    assert tuple(found.select(("buy", "view"))) == ("view", "buy")
    assert found.select(("cart", "view")).target is None


def test_a_mapping_with_a_readable_face():
    found = Relations.of(dgl_graph(), ("view", "cart", "buy"), "buy")
    assert repr(found) == "Relations(4 users, 3 items, view=4, cart=2, buy=2; target 'buy')"
    assert len(found) == 3
    assert "view" in found
    assert "vew" not in found
    with pytest.raises(UnknownNameError, match="unknown behavior 'vew'; did you mean 'view'"):
        found["vew"]


def test_copies_and_pickles():
    found = Relations.of(dgl_graph(), ("view", "cart", "buy"), "buy").replace(norm="left")
    rows = torch.randn(3, 2)
    expected = found["view"].propagate(rows, "user")
    for twin in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        check(twin, ("view", "cart", "buy"))
        assert (twin.target, twin.has_order) == ("buy", True)
        assert torch.equal(twin["view"].propagate(rows, "user"), expected)


def test_errors_name_the_remedy():
    graph = dgl_graph()
    with pytest.raises(UnknownNameError, match="unknown behavior 'vew'; did you mean 'view'"):
        Relations.of(graph, ("vew",))
    with pytest.raises(UnknownNameError, match="unknown target behavior 'by'; did you mean 'buy'"):
        Relations.of(graph, target="by")
    with pytest.raises(UnknownNameError, match="unknown target behavior 'buy'"):
        Relations.of(graph, ("view",), "buy")
    with pytest.raises(UsageError, match="needs at least one behavior; give a graph with an edge type per behavior"):
        Relations({})
    with pytest.raises(
        UsageError, match="cannot read behaviors of a dict; give a DGL heterograph, a PyG HeteroData or"
    ):
        Relations.of({"view": EDGES["view"]})
    with pytest.raises(UsageError, match=r"must share their users and items, found \[\(1, 1\), \(1, 2\)\]"):
        Relations({"a": Relation([0], [0], 1, 1), "b": Relation([0], [0], 1, 2)})


def test_a_graph_of_numpy_arrays():
    """Edges need not be tensors."""
    found = Relations({"view": Relation(*map(np.array, EDGES["view"]), 4, 3)})
    assert cells(found["view"]) == sorted(zip(*EDGES["view"], strict=True))


def test_shares_and_presence_of_nodes():
    relations = Relations.of(dgl_graph(), ("view", "cart", "buy"), "buy")
    users = [[2, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0]]
    expected = torch.tensor([[count / max(1, sum(row)) for count in row] for row in users], dtype=torch.float64)
    assert torch.equal(relations.shares("user"), expected)
    assert relations.shares("item")[0].tolist() == [0.5, 0, 0.5]
    made = relations.shares("item", eps=1.0, dtype=torch.float32)
    assert made.dtype == torch.float32
    assert made[1].tolist() == pytest.approx([1 / 3, 1 / 3, 0])
    nodes = torch.tensor([3, 2, 0, 2])
    made = relations.presence("user", nodes, torch.float64)
    assert {name: rows.tolist() for name, rows in made.items()} == {
        "view": [0, 1, 1, 1], "cart": [0, 1, 1, 1], "buy": [0, 0, 1, 0],
    }  # fmt: skip
    assert made["buy"].dtype == torch.float64
