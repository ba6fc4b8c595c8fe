import copy

import numpy as np
import pytest

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError, UnknownNameError


def pairs(*cells):
    return Pairs(*(np.array(cells, np.int64).reshape(-1, 2).T))


def make(edges=None, target="buy", splits=None, users=4, items=5):
    edges = {"view": pairs((0, 0), (1, 1)), "buy": pairs((0, 0), (2, 3))} if edges is None else edges
    return MultiBehaviorDataset("toy", Vocabulary(size=users), Vocabulary(size=items), edges, target, splits or {})


def test_names_and_counts(tiny):
    assert tiny.behaviors == ("view", "cart", "buy")
    assert tiny.auxiliary == ("view", "cart")
    assert tiny.counts == {"view": 9, "cart": 4, "buy": 5, "valid": 2, "test": 4}
    assert repr(tiny) == "MultiBehaviorDataset('tiny', 6 users, 5 items, view=9, cart=4, buy=5, valid=2, test=4)"
    assert len(make().valid) == len(make().test) == 0


def test_graph_keeps_isolated_nodes_and_train_edges_only(tiny):
    graph = tiny.graph
    assert (graph.num_nodes("user"), graph.num_nodes("item")) == (6, 5)
    assert graph.canonical_etypes == sorted(("user", behavior, "item") for behavior in tiny.behaviors)
    for behavior, train in tiny.edges.items():
        users, items = graph.edges(etype=behavior, order="eid")
        assert users.tolist() == train.user.tolist()
        assert items.tolist() == train.item.tolist()
    assert graph.out_degrees(5, etype="view") == 0
    assert tiny.graph is graph


def test_graph_of_read_only_arrays():
    user = np.array([0, 1])
    user.setflags(write=False)
    assert make({"buy": Pairs(user, user)}).graph.num_edges("buy") == 2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"target": "by"}, UnknownNameError, "unknown target behavior 'by'; did you mean 'buy'?"),
        ({"edges": {"buy": pairs()}}, DataError, "target behavior 'buy' of 'toy' has no edges; leave it out or add"),
        (
            {"edges": {"view": pairs(), "buy": pairs((0, 0))}},
            DataError,
            "^behavior 'view' of 'toy' has no edges; leave it out",
        ),
        ({"splits": {"tset": pairs((0, 1))}}, UnknownNameError, "unknown split 'tset'; did you mean 'test'?"),
        ({"edges": {"buy": pairs((0, -1))}}, DataError, "buy of 'toy': negative item id -1; ids start at 0"),
        ({"edges": {"buy": pairs((4, 0))}}, DataError, r"user id 4 is out of range; the dataset has 4 users \(0..3\)"),
        ({"splits": {"test": pairs((0, 9))}}, DataError, "test of 'toy': item id 9 is out of range"),
        (
            {"edges": {"buy": pairs((3, 1), (0, 0), (3, 1), (0, 0))}},
            DataError,
            "buy of 'toy': 2 duplicate pairs, the first is user 0 and item 0; keep the earliest of each",
        ),
        (
            {"splits": {"valid": pairs((0, 1)), "test": pairs((1, 1), (2, 3))}},
            DataError,
            "1 test pairs of 'toy' are also train pairs of 'buy', the first is user 2 and item 3; a held-out pair must",
        ),
        ({"edges": {"valid": pairs((0, 0)), "buy": pairs((0, 0))}}, DataError, "cannot be called 'valid'"),
        ({"edges": {"": pairs((0, 0)), "buy": pairs((0, 0))}}, DataError, "'' is no behavior name"),
        ({"users": 2**40, "items": 2**40}, DataError, "too many for one dataset; number users and items from 0"),
    ],
)
def test_bad_datasets(changes, error, message):
    with pytest.raises(error, match=message):
        make(**changes)


def test_unknown_pairs_name_the_nearest(tiny):
    with pytest.raises(UnknownNameError, match=r"unknown behavior 'veiw'; did you mean 'view'?"):
        tiny.csr("veiw")
    assert tiny.csr("test").row(2).tolist() == [0, 3]
    assert make().csr("valid").degrees().tolist() == [0, 0, 0, 0]


def test_hash_ignores_order_and_name_but_nothing_else():
    edges = {"view": pairs((0, 0), (1, 1)), "buy": pairs((0, 0), (2, 3))}
    ds = make(edges)
    swapped = make({"buy": edges["buy"][::-1], "view": edges["view"]}).replace(name="other")
    assert ds.content_hash() == swapped.content_hash()
    others = [
        make(users=5),
        make({**edges, "view": pairs((0, 0), (1, 2))}),
        make({**edges, "cart": pairs((0, 0))}),
        make(edges, target="view"),
        make(edges, splits={"test": pairs((0, 1))}),
        make(edges, splits={"valid": pairs((0, 1))}),
    ]
    assert len({ds.content_hash(), *(other.content_hash() for other in others)}) == len(others) + 1


def test_a_dict_that_changes_later_changes_no_dataset():
    edges = {"buy": pairs((0, 0))}
    ds = make(edges)
    edges["view"] = pairs((9, 9))
    assert ds.behaviors == ("buy",)


def test_copies_are_independent(tiny):
    assert copy.deepcopy(tiny).content_hash() == tiny.content_hash()
    assert tiny.replace(name="other").name == "other"
    assert tiny.name == "tiny"


def test_graph_carries_times_of_behaviors_that_have_them(tiny):
    unsigned = Pairs(tiny.edges["cart"].user, tiny.edges["cart"].item, tiny.edges["cart"].time.astype(np.uint64))
    without = Pairs(tiny.edges["view"].user, tiny.edges["view"].item)
    graph = tiny.replace(edges={**tiny.edges, "cart": unsigned, "view": without}).graph
    times = {name: graph["user", name, "item"].edata for name in ("view", "cart", "buy")}
    assert times["buy"]["time"].tolist() == tiny.edges["buy"].time.tolist()
    assert times["cart"]["time"].tolist() == tiny.edges["cart"].time.tolist()
    assert "time" not in times["view"]
