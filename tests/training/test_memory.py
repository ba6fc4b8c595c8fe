from types import SimpleNamespace

import pytest

from mbgraph.data.synthetic import Auxiliary, SyntheticConfig, generate
from mbgraph.training.memory import available_memory, estimate_memory


def total(dataset, **options):
    return sum(estimate_memory(dataset, **options).values())


@pytest.fixture(scope="module")
def sizes():
    """Two datasets over the same nodes, the second with 1,000 pairs more."""
    return [
        generate(
            SyntheticConfig(
                num_users=200, num_items=100, auxiliary={"view": Auxiliary(edges, 0.5)}, dt=None, times=False
            ),
            rng=0,
        )
        for edges in (2_000, 3_000)
    ]


def test_pairs_and_neighbour_lists_by_hand(sizes):
    small, large = (estimate_memory(ds, embedding_dim=8, num_layers=2) for ds in sizes)
    assert large["pairs"] - small["pairs"] == 1_000 * 16
    assert large["histories"] - small["histories"] == 1_000 * 16
    assert large["neighbour lists"] - small["neighbour lists"] == 1_000 * (6 * 8 + 2 * 4)
    rest = {"imports", "tables, gradient, Adam, best epoch", "layers of a step", "batch", "evaluation"}
    assert all(large[part] == small[part] for part in rest)


def test_tables_by_hand(sizes):
    parts = estimate_memory(sizes[0], embedding_dim=8, num_layers=3)
    table = 300 * 8 * 4
    assert parts["tables, gradient, Adam, best epoch"] == 5 * table
    assert parts["layers of a step"] == 2 * 2 * table + 3 * table
    packed = estimate_memory(sizes[0], embedding_dim=8, num_layers=3, row_dtype="bfloat16")
    assert packed["layers of a step"] == parts["layers of a step"] // 2


def test_the_batch_grows_with_its_square(sizes):
    one, two = (estimate_memory(sizes[0], embedding_dim=8, batch_size=size)["batch"] for size in (1_000, 2_000))
    assert two - 2 * one == 2 * 4 * (2_000**2 - 2 * 1_000**2)


def test_a_model_without_tables_keeps_the_data_only(sizes):
    assert set(estimate_memory(sizes[0])) == {"imports", "pairs", "histories"}


def test_the_memory_that_is_left_is_what_the_system_says(monkeypatch):
    monkeypatch.setattr(
        "psutil.virtual_memory", lambda: SimpleNamespace(total=8 * 2**30, free=2**30, available=3 * 2**30)
    )
    assert available_memory() == 3 * 2**30
