"""What the cost benchmark generates, counts and concludes; its times are nobody's test."""

import sys

import numpy as np
import pytest

from mbgraph.bench import costs
from mbgraph.bench.costs import Shape
from mbgraph.bench.speed import Settings
from mbgraph.data.synthetic import generate
from mbgraph.errors import RunError, UsageError
from mbgraph.models import batch_rule

EDGES = 3_000


@pytest.mark.parametrize("behaviors", [2, 3, 4, 5])
def test_a_graph_has_the_edges_and_behaviors_of_its_shape(behaviors):
    ds = generate(Shape(EDGES, users=60, items=300, behaviors=behaviors).config(), rng=0)
    assert len(ds.behaviors) == behaviors
    assert (ds.num_users, ds.num_items) == (60, 300)
    assert sum(len(pairs) for pairs in ds.edges.values()) == EDGES
    assert len(ds.edges[ds.target]) == EDGES // 10


def test_a_shape_says_itself_in_words():
    assert str(Shape(EDGES, users=60, items=300, behaviors=4, width=8)) == (
        "3,000 edges, 60 users, 300 items, 4 behaviors, width 8, batches of 1,024"
    )
    assert str(Shape(EDGES)) == "3,000 edges, 3 behaviors, width 64, batches of 1,024"


def test_one_property_differs_at_a_time():
    (_, base), *others = costs.varying(Settings.quick())
    for name, shape in others:
        differs = [field for field in vars(base) if getattr(shape, field) != getattr(base, field)]
        assert differs == [name]
    assert {name for name, _ in others} == {"users", "items", "behaviors", "width", "batch"}


def test_a_step_tells_its_work():
    measured = costs.measure_step(Shape(EDGES, users=60, width=8, batch=32))
    assert (measured["edges"], measured["users"], measured["steps"]) == (EDGES, 60, 2)
    assert measured["seconds"] > 0
    # two auxiliary behaviors, three products of the contrast each
    assert measured["operations"] == 2 * 3 * 2.0 * 32 * 32 * 8
    assert measured["peak"] > 300


def test_the_largest_graphs_are_measured_with_the_batch_of_the_rule_too(monkeypatch):
    shapes = costs.growing(Settings.quick())
    assert [(shape.edges, shape.batch, shape.block_users) for shape in shapes[-3:]] == [
        (1_000_000, 1024, 0), (1_000_000, "auto", 0), (1_000_000, "auto", 1)
    ]  # fmt: skip
    assert str(shapes[-1]).endswith("batches of auto, blocks of 1 users")
    sizes = {shape.batch for shape in costs.growing(Settings())[:5]}
    assert sizes == {1024}
    monkeypatch.setattr(batch_rule, "MOST_STEPS", 1)
    measured = costs.measure_step(Shape(20_000, users=2_000, items=300, width=8, batch="auto"))
    assert (measured["batch"], measured["steps"], measured["drawing"] > 0) == (2048, 1, True)
    assert measured["block users"] == 0
    few = costs.measure_step(Shape(20_000, users=2_000, items=300, width=8, batch=16, block_users=1))
    assert (few["batch"], few["block users"], few["steps"]) == (16, 16, 125)
    assert few["moved"] < measured["moved"] / 2


def test_a_row_puts_time_beside_its_floor():
    measured = {
        **dict.fromkeys(("edges", "users", "items", "behaviors", "width", "batch", "block users"), 1000),
        **{"drawing": 0.5, "seconds": 0.2, "busy": 0.3, "steps": 5, "moved": 3e9, "operations": 1e9, "peak": 700.4},
    }
    row = costs._row(measured, bandwidth=60e9, rate=20e9)
    assert (row["ms per step"], row["ns per edge"], row["s per epoch"]) == (200.0, 200_000.0, 1.5)
    assert row["CPU s per epoch"] == 2.0
    assert row["floor, ms"] == pytest.approx(1e3 * (0.05 + 0.05))
    assert row["times floor"] == 2.0
    assert row["peak MiB"] == 700


@pytest.mark.slow
def test_a_step_runs_in_a_process_of_its_own():
    (row,) = costs.run_apart([Shape(EDGES, width=8)], bandwidth=1e10, rate=1e11)
    assert (row["edges"], row["width"]) == (EDGES, 8)
    assert row["floor, ms"] > 0


def test_a_process_that_fails_says_why(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no memory left >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(RunError, match=r"3,000 edges, 3 behaviors.* ended with 3: no memory left"):
        next(costs.run_apart([Shape(EDGES)], 1e10, 1e11))


def rows_of(per_edge, per_node, start, shapes):
    return [
        {"edges": edges, "users": users, "items": users // 3, "peak MiB": size}
        for edges, users in shapes
        for size in [(per_edge * edges + per_node * (users + users // 3) + start) / 2**20]
    ]


def test_memory_per_edge_and_node_is_the_line_through_the_graphs():
    shapes = [(10**6, 9_000), (3 * 10**6, 30_000), (10**7, 90_000), (10**7, 900_000)]
    row = costs.memory_per(rows_of(88, 3_000, 400 * 2**20, shapes))
    assert row["bytes per edge"] == pytest.approx(88, abs=0.1)
    assert row["bytes per node"] == pytest.approx(3_000, abs=1)
    assert row["MiB beside"] == 400
    assert row["largest error"] == 0


def test_an_error_of_the_line_is_relative():
    rows = rows_of(88, 3_000, 400 * 2**20, [(10**6, 9_000), (3 * 10**6, 30_000), (10**7, 90_000), (10**7, 900_000)])
    rows[0]["peak MiB"] *= 1.1
    assert 0.01 < costs.memory_per(rows)["largest error"] < 0.1


def test_one_kind_of_graph_does_not_tell_an_edge_from_a_node():
    with pytest.raises(UsageError, match="edges per node"):
        costs.memory_per(rows_of(88, 3_000, 0, [(edges, edges // 100) for edges in 3 * 10 ** np.arange(4, 8)]))
