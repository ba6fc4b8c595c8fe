"""What is kept of a row's weights: against sorted lists."""

import pytest
import torch
from torch.testing import assert_close

from mbgraph.nn.typed import causal, top


def kept_by_hand(row, count):
    border = sorted(row, reverse=True)[min(count, len(row)) - 1] if count else float("inf")
    return [value if value >= border else 0.0 for value in row]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 1, 3, 6, 7])
def test_the_largest_of_every_row_stay(count, dtype):
    weights = torch.tensor([[0.5, 0.25, 0.0, 0.25, 0.125, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], dtype=dtype)
    expected = torch.tensor([kept_by_hand(row, count) for row in weights.tolist()], dtype=dtype)
    assert_close(top(weights, count), expected)
    assert_close(top(weights, torch.tensor([count, count])), expected)


def test_every_row_may_have_a_number_of_its_own_and_equal_ones_stay():
    weights = torch.tensor([[[0.5, 0.25, 0.25, 0.25], [0.5, 0.25, 0.25, 0.25]], [[4.0, 3.0, 2.0, 1.0]] * 2])
    made = top(weights, torch.tensor([[2, 0], [9, 1]]))
    assert made.tolist() == [[[0.5, 0.25, 0.25, 0.25], [0.0] * 4], [[4.0, 3.0, 2.0, 1.0], [4.0, 0.0, 0.0, 0.0]]]


def test_what_falls_away_has_no_derivative():
    weights = torch.tensor([[3.0, 1.0, 2.0]], requires_grad=True)
    (top(weights, 2) * torch.tensor([5.0, 7.0, 11.0])).sum().backward()
    assert weights.grad.tolist() == [[5.0, 0.0, 11.0]]


def test_a_compiled_row_is_sorted_by_torch():
    weights = torch.tensor([[0.5, 0.25, 0.125]])
    made = torch.compile(lambda given: top(given, 2), fullgraph=True, backend="aot_eager")(weights)
    assert made.tolist() == [[0.5, 0.25, 0.0]]


def test_a_position_looks_at_itself_and_what_came_before():
    made = causal(torch.tensor([[False, True, True], [True, True, False]]))
    assert made.tolist() == [
        [[False, False, False], [False, True, False], [False, True, True]],
        [[True, False, False], [True, True, False], [True, True, False]],
    ]
