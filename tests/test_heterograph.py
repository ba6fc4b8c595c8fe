"""One suite for whatever carries the graph: DGL and our own heterograph answer alike."""

from __future__ import annotations

import copy
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mbgraph import _heterograph as own
from mbgraph._dgl import DGLImportError, open_dgl
from mbgraph.errors import UnknownNameError, UsageError

VIEW, BUY, LIKE = ("user", "view", "item"), ("user", "buy", "item"), ("item", "like", "user")
EDGES = {
    VIEW: ([2, 0, 0, 1, 0], [1, 3, 0, 1, 3]),  # in no order, one edge twice
    LIKE: ([3, 1], [0, 2]),
    BUY: ([0], [3]),
}
COUNTS = {"user": 4, "item": 5}  # user 3 and items 2 and 4 have no edge


def carrier_module(name: str):
    if name == "mbgraph":
        return own
    try:
        return open_dgl()
    except DGLImportError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["dgl", "mbgraph"], scope="module")
def carrier(request):
    return carrier_module(request.param)


@pytest.fixture
def graph(carrier):
    return carrier.heterograph(EDGES, num_nodes_dict=COUNTS)


@pytest.fixture
def single(carrier):
    return carrier.heterograph({VIEW: EDGES[VIEW]}, num_nodes_dict=COUNTS)


def lists(tensors) -> list[list[int]]:
    return [tensor.tolist() for tensor in tensors]


# ----------------------------------------------------------------------------------------------------------- structure


def test_types_are_sorted_whatever_order_they_were_given_in(graph):
    assert graph.ntypes == ["item", "user"]
    assert graph.canonical_etypes == [LIKE, BUY, VIEW]
    assert graph.etypes == ["like", "buy", "view"]
    assert [graph.to_canonical_etype(name) for name in ("view", "buy", LIKE)] == [VIEW, BUY, LIKE]


def test_counts(graph, single):
    assert (graph.num_nodes(), graph.num_nodes("user"), graph.num_nodes("item")) == (9, 4, 5)
    assert (graph.num_edges(), graph.num_edges("view"), graph.num_edges(BUY)) == (8, 5, 1)
    assert (single.num_src_nodes(), single.num_dst_nodes()) == (4, 5)
    assert (single.num_src_nodes("user"), single.num_dst_nodes("item")) == (4, 5)


def test_counts_follow_from_the_ids_where_they_are_not_given(carrier):
    graph = carrier.heterograph(EDGES)
    assert (graph.num_nodes("user"), graph.num_nodes("item")) == (3, 4)


def test_node_types_without_an_edge_stay(carrier):
    graph = carrier.heterograph({BUY: EDGES[BUY]}, num_nodes_dict={**COUNTS, "shop": 7})
    assert graph.ntypes == ["item", "shop", "user"]
    assert graph.num_nodes("shop") == 7


def test_an_edge_type_may_be_empty(carrier):
    graph = carrier.heterograph({VIEW: ([], []), BUY: EDGES[BUY]}, num_nodes_dict=COUNTS)
    assert graph.num_edges("view") == 0
    assert lists(graph.edges(etype="view")) == [[], []]
    assert graph.in_degrees(etype="view").tolist() == [0] * 5
    assert carrier.ops.copy_u_sum(graph["view"], torch.ones(4, 2)).tolist() == [[0.0, 0.0]] * 5


@pytest.mark.parametrize(
    "make",
    [list, np.array, torch.tensor, lambda ids: torch.tensor(ids, dtype=torch.int32)],
    ids=["list", "array", "tensor", "int32"],
)
def test_ids_may_be_lists_arrays_or_tensors(carrier, make):
    graph = carrier.heterograph({VIEW: tuple(make(ids) for ids in EDGES[VIEW])}, num_nodes_dict=COUNTS)
    assert lists(graph.edges()) == list(EDGES[VIEW])
    assert graph.idtype == torch.as_tensor(make([0])).dtype
    assert graph.in_degrees().dtype == graph.idtype
    assert carrier.ops.copy_u_sum(graph, torch.eye(4))[3].tolist() == [2.0, 0.0, 0.0, 0.0]


# --------------------------------------------------------------------------------------------------------------- edges


def test_edges_keep_the_order_they_were_given_in(graph):
    for triple, pair in EDGES.items():
        assert lists(graph.edges(etype=triple)) == lists(graph.edges(etype=triple, order="eid")) == list(pair)
        assert lists(graph.edges(etype=triple[1], order=None)) == list(pair)
    assert lists(graph.edges(etype="view", form="all")) == [*EDGES[VIEW], [0, 1, 2, 3, 4]]
    assert graph.edges(etype="view", form="eid").tolist() == [0, 1, 2, 3, 4]


def test_edges_by_source_and_destination(graph):
    sources, destinations, ids = lists(graph.edges(etype="view", form="all", order="srcdst"))
    assert list(zip(sources, destinations, strict=True)) == [(0, 0), (0, 3), (0, 3), (1, 1), (2, 1)]
    assert [list(zip(*EDGES[VIEW], strict=True))[place] for place in ids] == list(
        zip(sources, destinations, strict=True)
    )


def test_degrees(graph):
    assert graph.in_degrees(etype="view").tolist() == [1, 2, 0, 2, 0]
    assert graph.out_degrees(etype="view").tolist() == [3, 1, 1, 0]
    assert graph.out_degrees(etype="like").tolist() == [0, 1, 0, 1, 0]


def test_the_degree_of_one_node_is_a_number_and_of_several_a_tensor(graph):
    assert (graph.in_degrees(3, etype="view"), graph.out_degrees(3, etype="view")) == (2, 0)
    assert isinstance(graph.in_degrees(3, etype="view"), int)
    assert graph.in_degrees([4, 3, 3], etype="view").tolist() == [0, 2, 2]
    assert graph.out_degrees(torch.tensor([0]), etype="view").tolist() == [3]


def test_degrees_that_are_changed_do_not_change_the_graph(graph):
    graph.in_degrees(etype="view").zero_()
    assert graph.in_degrees(etype="view").tolist() == [1, 2, 0, 2, 0]


PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=30)


@pytest.mark.parametrize("name", ["dgl", "mbgraph"])
@given(pairs=PAIRS)
def test_adjacency_and_sums_of_random_edges_are_those_of_plain_loops(name, pairs):
    carrier = carrier_module(name)
    sources, destinations = ([pair[end] for pair in pairs] for end in (0, 1))
    graph = carrier.heterograph({VIEW: (sources, destinations)}, num_nodes_dict={"user": 7, "item": 5})
    assert graph.out_degrees().tolist() == [Counter(sources)[node] for node in range(7)]
    assert graph.in_degrees().tolist() == [Counter(destinations)[node] for node in range(5)]
    assert lists(graph.adj_tensors("coo")) == [sources, destinations]
    for fmt, count, own_end in (("csr", 7, 0), ("csc", 5, 1)):
        pointers, others, ids = lists(graph.adj_tensors(fmt))
        ids = ids or list(range(len(pairs)))  # DGL leaves them out where they would count up from 0
        assert len(pointers) == count + 1
        for node in range(count):
            mine = [place for place, pair in enumerate(pairs) if pair[own_end] == node]
            assert sorted(ids[pointers[node] : pointers[node + 1]]) == mine
            found = zip(
                ids[pointers[node] : pointers[node + 1]], others[pointers[node] : pointers[node + 1]], strict=True
            )
            assert all(pairs[place][1 - own_end] == other for place, other in found)
    rows = torch.arange(14.0).reshape(7, 2)  # (7, 2)
    expected = torch.zeros(5, 2)
    for source, destination in pairs:
        expected[destination] += rows[source]
    assert torch.equal(carrier.ops.copy_u_sum(graph, rows), expected)
    assert torch.allclose(
        carrier.ops.copy_u_sum(carrier.reverse(graph), expected), dense(pairs) @ expected, rtol=1e-6, atol=0
    )


def dense(pairs) -> torch.Tensor:
    matrix = torch.zeros(7, 5)  # users x items
    for source, destination in pairs:
        matrix[source, destination] += 1
    return matrix


def test_reverse_turns_every_edge_and_keeps_names(graph, carrier):
    graph.ndata["age"] = {"user": torch.arange(4)}
    graph.edata["weight"] = {VIEW: torch.arange(5.0)}
    turned = carrier.reverse(graph)
    assert turned.canonical_etypes == [("user", "like", "item"), ("item", "buy", "user"), ("item", "view", "user")]
    for _, name, _ in EDGES:
        assert lists(turned.edges(etype=name)) == lists(graph.edges(etype=name))[::-1]
    assert (turned.num_nodes("user"), turned.num_nodes("item")) == (4, 5)
    assert turned.ndata["age"]["user"].tolist() == [0, 1, 2, 3]
    assert "weight" not in turned["view"].edata


def test_a_slice_has_one_edge_type(graph):
    part = graph["view"]
    assert part.canonical_etypes == graph[VIEW].canonical_etypes == [VIEW]
    assert lists(part.edges()) == list(EDGES[VIEW])
    assert (part.num_src_nodes(), part.num_dst_nodes()) == (4, 5)


def test_formats(single):
    assert {name for names in single.formats().values() for name in names} == {"coo", "csc", "csr"}
    assert "coo" in single.formats()["created"]
    single.adj_tensors("csr")
    assert "csr" in single.formats()["created"]
    for fmt in ("csc", ["csr", "csc"]):
        assert sorted(zip(*lists(single.formats(fmt).edges(order=None)), strict=True)) == sorted(
            zip(*EDGES[VIEW], strict=True)
        )


# ---------------------------------------------------------------------------------------------------------------- sums


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3), (4, 2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_have_the_shape_and_type_of_rows(single, carrier, shape, dtype):
    rows = torch.arange(float(np.prod(shape)), dtype=dtype).reshape(shape)
    summed = carrier.ops.copy_u_sum(single, rows)
    expected = torch.zeros(5, *shape[1:], dtype=dtype)
    for source, destination in zip(*EDGES[VIEW], strict=True):
        expected[destination] += rows[source]
    assert summed.dtype == dtype
    assert torch.equal(summed.reshape(expected.shape), expected)


def test_sums_of_bfloat16_rows_are_bfloat16(single, carrier):
    summed = carrier.ops.copy_u_sum(single, torch.tensor([[1.0], [256.0], [2.0], [0.0]], dtype=torch.bfloat16))
    assert summed.dtype == torch.bfloat16
    assert summed.flatten().tolist() == [1.0, 258.0, 0.0, 2.0, 0.0]


def test_the_gradient_of_a_sum_is_the_sum_the_other_way(single, carrier):
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    (carrier.ops.copy_u_sum(single, rows) * weights).sum().backward()
    expected = torch.zeros(4, 3)
    for source, destination in zip(*EDGES[VIEW], strict=True):
        expected[source] += weights[destination]
    torch.testing.assert_close(rows.grad, expected)


def test_our_sum_can_be_derived_twice():
    graph = own.heterograph({VIEW: EDGES[VIEW]}, num_nodes_dict=COUNTS)
    rows = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def curved(given):
        return own.ops.copy_u_sum(graph, given) ** 2

    assert torch.autograd.gradcheck(curved, rows)
    assert torch.autograd.gradgradcheck(curved, rows)


# ------------------------------------------------------------------------------------------------------------ features


def test_features_of_a_graph_with_one_edge_type(single):
    assert len(single.edata) == 0
    assert "weight" not in single.edata
    single.edata["weight"] = torch.arange(5.0)
    assert single.edata["weight"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert list(single.edata.keys()) == ["weight"]
    del single.edata["weight"]
    assert "weight" not in single.edata


def test_features_of_a_graph_with_several_types(graph):
    graph.edata["weight"] = {VIEW: torch.arange(5.0), BUY: torch.ones(1)}
    graph.ndata["age"] = {"user": torch.arange(4)}
    assert {triple: rows.tolist() for triple, rows in graph.edata["weight"].items()} == {
        BUY: [1.0],
        VIEW: [0.0, 1.0, 2.0, 3.0, 4.0],
    }
    assert graph.ndata["age"]["user"].tolist() == [0, 1, 2, 3]
    assert graph["view"].edata["weight"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda graph: pickle.loads(pickle.dumps(graph))])
def test_copies_are_equal(graph, duplicate):
    graph.edata["weight"] = {VIEW: torch.arange(5.0)}
    graph.adj_tensors("csr", etype="view")
    other = duplicate(graph)
    assert other.canonical_etypes == graph.canonical_etypes
    assert {ntype: other.num_nodes(ntype) for ntype in other.ntypes} == COUNTS
    for triple, pair in EDGES.items():
        assert lists(other.edges(etype=triple)) == list(pair)
    assert other.edata["weight"][VIEW].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert lists(other.adj_tensors("csr", etype="view")) == lists(graph.adj_tensors("csr", etype="view"))


def test_a_graph_knows_its_device(graph):
    assert graph.device == graph.to("cpu").device == graph.cpu().device == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_our_graph_moves_to_a_cuda_device_with_its_features():
    graph = own.heterograph({VIEW: EDGES[VIEW]}, num_nodes_dict=COUNTS)
    graph.edata["weight"] = torch.arange(5.0)
    moved = graph.to("cuda")
    assert moved.edges()[0].is_cuda
    assert moved.edata["weight"].is_cuda
    rows = torch.eye(4)
    summed = own.ops.copy_u_sum(moved, rows.cuda())
    assert torch.equal(summed.cpu(), own.ops.copy_u_sum(graph, rows))


def test_both_print_alike():
    texts = [repr(carrier_module(name).heterograph(EDGES, num_nodes_dict=COUNTS)) for name in ("dgl", "mbgraph")]
    plain = [" ".join(text.split()).replace("HeteroGraph(", "Graph(") for text in texts]
    assert plain[0] == plain[1]


# -------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    "call",
    [
        lambda carrier, graph: graph.edges(),
        lambda carrier, graph: graph.edges(etype="sell"),
        lambda carrier, graph: graph.edges(etype="view", form="pairs"),
        lambda carrier, graph: graph.edges(etype="view", order="random"),
        lambda carrier, graph: graph.num_nodes("shop"),
        lambda carrier, graph: graph.num_edges("sell"),
        lambda carrier, graph: graph.in_degrees(),
        lambda carrier, graph: graph.out_degrees(etype="sell"),
        lambda carrier, graph: graph["sell"],
        lambda carrier, graph: carrier.ops.copy_u_sum(graph["view"], torch.ones(3, 2)),
        lambda carrier, graph: carrier.heterograph({VIEW: ([0], [9])}, num_nodes_dict={"user": 1, "item": 2}),
        lambda carrier, graph: carrier.heterograph({VIEW: ([0], [0, 1])}),
        lambda carrier, graph: carrier.heterograph({}),
        lambda carrier, graph: carrier.heterograph({VIEW: ([0], [0])}, num_nodes_dict={"user": 1}),
        lambda carrier, graph: graph["view"].edata.__setitem__("weight", torch.ones(3)),
    ],
)
def test_what_makes_no_sense_is_an_error_on_either(carrier, graph, call):
    kinds = (UsageError,) if carrier is own else (carrier.DGLError, KeyError)
    with pytest.raises(kinds):
        call(carrier, graph)


@pytest.mark.parametrize(
    ("data", "counts", "message"),
    [
        ({}, None, "a graph needs at least one edge type"),
        ({"view": ([0], [0])}, None, r"an edge type is \(source type, edge type, destination type\), not 'view'"),
        ({VIEW: ([0],)}, None, r"edges of 'view' are \(sources, destinations\); pass two lists"),
        ({VIEW: ("coo", ([0], [0]))}, None, r"edges of 'view' are \(sources, destinations\)"),
        ({VIEW: ([0], [0, 1])}, None, "edges of 'view' have 1 sources and 2 destinations"),
        ({VIEW: ([0.5], [0])}, None, "node ids of 'view' must be whole numbers, not float64"),
        ({VIEW: (torch.ones(1), [0])}, None, "node ids of 'view' must be whole numbers in one dimension"),
        ({VIEW: ([[0]], [[0]])}, None, "node ids of 'view' must be whole numbers in one dimension"),
        ({VIEW: ([-1], [0])}, None, "node ids of 'view' start at 0, not -1"),
        ({VIEW: ([0], [0])}, {"user": 1}, "num_nodes_dict lacks the node type 'item'"),
        ({VIEW: ([0], [4])}, {"user": 1, "item": 3}, "says 3 nodes of type 'item', but the edges name 5"),
        ({VIEW: (torch.tensor([0], dtype=torch.int32), [0])}, None, "edges mix id types or devices; pass idtype="),
    ],
)
def test_our_heterograph_says_what_is_wrong_with_the_edges(data, counts, message):
    with pytest.raises(UsageError, match=message):
        own.heterograph(data, num_nodes_dict=counts)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda graph: graph.edges(etype="veiw"), "unknown edge type 'veiw'; did you mean 'view'?"),
        (lambda graph: graph.edges(), "this graph has several edge types; pass etype=, one of: like, buy, view"),
        (lambda graph: graph.num_nodes("users"), "unknown node type 'users'; did you mean 'user'?"),
        (lambda graph: graph["view"].num_src_nodes("item"), "unknown source node type 'item'; choose from: user"),
        (lambda graph: graph.adj_tensors("dense", "view"), "unknown sparse format 'dense'"),
        (lambda graph: graph.in_degrees(5, etype="view"), "there are 5 nodes of type 'item', and node ids start at 0"),
        (lambda graph: graph.in_degrees([-1], etype="view"), "there are 5 nodes of type 'item'"),
        (
            lambda graph: own.ops.copy_u_sum(graph["view"], torch.ones(3, 2)),
            "a neighbour sum needs 4 rows of 'user', not 3",
        ),
        (
            lambda graph: own.ops.copy_u_sum(graph["view"], torch.ones(4, dtype=torch.long)),
            "a neighbour sum needs floating point rows, not torch.int64",
        ),
        (lambda graph: graph.edata.__setitem__("w", torch.ones(5)), "feature 'w' must be a mapping of type to tensor"),
        (lambda graph: graph.ndata.__setitem__("w", {"user": torch.ones(5)}), "'w' of user needs 4 rows, not 5"),
        (lambda graph: graph.ndata.__setitem__("w", {"shop": torch.ones(5)}), "unknown type of a feature 'shop'"),
    ],
)
def test_our_heterograph_says_what_is_wrong_with_a_call(call, message):
    graph = own.heterograph(EDGES, num_nodes_dict=COUNTS)
    with pytest.raises(UsageError) as caught:
        call(graph)
    assert message in str(caught.value)


def test_a_name_that_two_edge_types_share_is_ambiguous():
    both = own.heterograph({VIEW: ([0], [0]), ("item", "view", "user"): ([0], [0])})
    with pytest.raises(UsageError, match="edge type 'view' is ambiguous"):
        both.edges(etype="view")
    assert both.num_edges(VIEW) == 1
    with pytest.raises(UnknownNameError, match="unknown edge type 'user buy item'"):
        both.edges(etype=BUY)


# ---------------------------------------------------------------------------------------------------------- conversion


def test_a_graph_goes_to_dgl_and_back_without_loss():
    carrier_module("dgl")
    graph = own.heterograph(EDGES, num_nodes_dict={**COUNTS, "shop": 2})
    graph.edata["weight"] = {VIEW: torch.arange(5.0)}
    graph.ndata["age"] = {"user": torch.arange(4)}
    there = graph.to_dgl()
    assert type(there).__name__ == "DGLGraph"
    back = own.HeteroGraph.from_dgl(there)
    for other in (there, back):
        assert other.ntypes == graph.ntypes
        assert other.canonical_etypes == graph.canonical_etypes
        assert [other.num_nodes(ntype) for ntype in other.ntypes] == [5, 2, 4]
        for triple, pair in EDGES.items():
            assert lists(other.edges(etype=triple)) == list(pair)
        assert other.edata["weight"][VIEW].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert other.ndata["age"]["user"].tolist() == [0, 1, 2, 3]
        assert other.idtype == torch.int64


def test_a_dgl_graph_that_dropped_its_edge_list_keeps_its_edge_ids():
    there = carrier_module("dgl").heterograph({VIEW: EDGES[VIEW]}, num_nodes_dict=COUNTS).formats("csc")
    assert lists(own.HeteroGraph.from_dgl(there).edges()) == list(EDGES[VIEW])


def test_int32_graphs_stay_int32():
    carrier_module("dgl")
    graph = own.heterograph({VIEW: EDGES[VIEW]}, idtype=torch.int32)
    assert graph.to_dgl().idtype == own.HeteroGraph.from_dgl(graph.to_dgl()).idtype == torch.int32
