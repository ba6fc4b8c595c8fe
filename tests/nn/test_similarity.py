"""Swing by a naive loop over pairs of pairs, and short lists of similar nodes by hand."""

import itertools

import numpy as np
import pytest
from scipy import sparse

from mbgraph.nn import Relation, most_similar, swing


@pytest.mark.parametrize("block", [1, 3, 1024])
@pytest.mark.parametrize("side", ["user", "item"])
def test_swing_is_the_sum_over_pairs_of_common_neighbours(side, block):
    rng = np.random.default_rng(3)
    matrix = rng.random((9, 7)) < 0.5
    matrix[4] = False
    relation = Relation(*np.nonzero(matrix), *matrix.shape)
    lists = [set(np.flatnonzero(row)) for row in (matrix if side == "user" else matrix.T)]
    others = [set(np.flatnonzero(row)) for row in (matrix.T if side == "user" else matrix)]
    expected = np.zeros((len(lists), len(lists)))
    for one, two in itertools.permutations(range(len(lists)), 2):
        for first, second in itertools.combinations(sorted(lists[one] & lists[two]), 2):
            expected[one, two] += 1 / (0.5 + len(others[first] & others[second]))
    assert expected.any()
    assert swing(relation, side, block=block).toarray() == pytest.approx(expected)


def test_lists_hold_what_is_strictly_above_the_kth():
    similarity = np.zeros((5, 6))
    similarity[0, [1, 2, 3, 4]] = [0.2, 0.9, 0.5, 0.4]
    similarity[1, [0, 2, 3]] = [0.5, 0.5, 0.7]
    similarity[2, 4] = 0.1
    similarity[3, [0, 1, 2, 4]] = 0.3
    made = most_similar(sparse.csr_matrix(similarity), 3)
    assert made.tolist() == [[2, 3], [3, -1], [4, -1], [-1, -1], [-1, -1]]
