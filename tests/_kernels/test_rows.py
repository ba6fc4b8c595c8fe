"""How rows are cut for caches and threads, and how they are packed."""

import itertools

import numpy as np
import pytest
import torch

from mbgraph._kernels import Adjacency, rows


def test_block_pointers_cut_every_row():
    indptr, indices = np.array([0, 3, 3, 5]), np.array([0, 4, 9, 4, 5], np.uint32)
    assert rows.block_pointers(indptr, indices, 10, 1).tolist() == [[0, 3, 3], [3, 3, 5]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_WORTHWHILE", 0)
        patch.setattr(rows, "_cache_bytes", lambda: 40)  # ten rows of four bytes fit
        assert len(rows.block_pointers(indptr, indices, 10, 4)) == 2
        patch.setattr(rows, "_cache_bytes", lambda: 39)  # three blocks: columns 0 to 2, 3 to 5, 6 to 9
        cuts = rows.block_pointers(indptr, indices, 10, 4)
        assert cuts.tolist() == [[0, 3, 3], [1, 3, 3], [2, 3, 5], [3, 3, 5]]
        patch.setattr(rows, "_WORTHWHILE", 5 / 6)  # enough for three rows in two blocks
        assert rows.block_pointers(indptr, indices, 10, 4).tolist() == [[0, 3, 3], [2, 3, 4], [3, 3, 5]]
        patch.setattr(rows, "_WORTHWHILE", 1)  # and too few for these
        assert len(rows.block_pointers(indptr, indices, 10, 4)) == 2


@pytest.mark.parametrize("chunks", [1, 2, 3, 7])
def test_chunks_cover_all_rows_and_cost_about_the_same(chunks):
    degrees = np.random.default_rng(0).integers(0, 9, 200)
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    bounds = rows.balanced_chunks(indptr, chunks)
    assert len(bounds) == chunks + 1
    assert (bounds[0], bounds[-1]) == (0, 200)
    costs = [int(indptr[stop] - indptr[start]) + 2 * (stop - start) for start, stop in itertools.pairwise(bounds)]
    assert max(costs) - min(costs) <= 2 * (8 + 2)
    assert rows.balanced_chunks(np.zeros(1, np.int64), chunks) == [0] * (chunks + 1)


def test_cuts_of_a_side_are_computed_once():
    side = Adjacency(np.array([0, 3, 3, 5]), np.array([0, 4, 9, 4, 5], np.uint32), 10)
    assert side.most == 3
    assert side.blocks(4) is side.blocks(4)
    assert side.chunks(2) is side.chunks(2)
    assert side.chunks(2) == rows.balanced_chunks(side.pointers, 2)
    assert Adjacency(np.zeros(1, np.int64), np.empty(0, np.uint32), 0).most == 0


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
    monkeypatch.setattr(rows, "_CACHES", tmp_path)
    monkeypatch.setattr(rows, "_is_amd", lambda: is_amd)
    assert rows._cache_bytes.__wrapped__() == expected


def test_this_machine_has_such_a_cache():
    assert 2**18 <= rows._cache_bytes.__wrapped__() <= 2**25


@pytest.mark.skipif(not rows.available, reason="needs numba")
def test_packing_is_torch_s_rounding():
    numbers = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-3, 3)
    numbers[0] = torch.tensor([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -0.0, 1 - 2**-9, 3e38])  # ties to even
    packed = np.empty((50, 3), np.uint32)
    rows.width_kernels(6).pack(0, 50, numbers.numpy(), packed)
    assert torch.equal(torch.from_numpy(rows.unpack_rows(packed)), numbers.bfloat16().float())
