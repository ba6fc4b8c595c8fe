"""The denominators of intents among each other: the derivative by hand against what autograd records, and the edges."""

import math

import pytest
import torch
from torch.testing import assert_close

from mbgraph.nn.intents import log_sum_of_others


def rows(*shape, seed=0):
    """Return rows of length 1, and one of 0."""
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    made = torch.nn.functional.normalize(made, dim=-1)
    made[0, 1] = 0  # has no direction
    return made


def plain(table, temperature):
    """The formula, by loops over rows."""
    return torch.stack(
        [
            torch.stack(
                [
                    torch.logsumexp(
                        torch.stack([row @ other / temperature for m, other in enumerate(group) if m != n]), 0
                    )
                    for n, row in enumerate(group)
                ]
            )
            for group in table
        ]
    )


@pytest.mark.parametrize("temperature", [1.0, 0.03, 0.025, 0.001])  # at 0.025 and below the maximum is subtracted
def test_values_and_both_derivatives_are_those_of_the_formula(temperature):
    table = rows(3, 5, 4).requires_grad_()
    weights, other = rows(3, 5, seed=1), rows(3, 5, 4, seed=2)
    made = log_sum_of_others(table, temperature)
    expected = plain(table, temperature)
    assert_close(made, expected, rtol=1e-12, atol=0.0)
    firsts = [
        torch.autograd.grad((sums * weights).sum(), table, create_graph=True, retain_graph=True)[0]
        for sums in (made, expected)
    ]
    assert_close(*firsts, rtol=1e-9, atol=1e-9)
    assert_close(
        torch.autograd.grad((made * weights).sum(), table, retain_graph=True)[0], firsts[1], rtol=1e-9, atol=1e-9
    )
    seconds = [torch.autograd.grad((first * other).sum(), table)[0] for first in firsts]
    assert_close(*seconds, rtol=1e-8, atol=1e-6)


def test_single_precision_at_the_bound():
    """All rows alike: every exponential is at its largest; opposite ones: at its smallest."""
    table = torch.tensor([[[1.0, 0.0]] * 200, [[1.0, 0.0]] + [[-1.0, 0.0]] * 199]).requires_grad_()
    made = log_sum_of_others(table, 0.0251)
    assert made[0, 0].item() == pytest.approx(math.log(199) + 1 / 0.0251, rel=1e-6)
    assert made[1, 0].item() == pytest.approx(math.log(199) - 1 / 0.0251, rel=1e-5)
    (gradient,) = torch.autograd.grad(made.sum(), table)
    assert gradient.isfinite().all()


def test_one_row_alone_has_no_denominator_and_no_gradient():
    table = torch.ones(2, 1, 3).requires_grad_()
    made = log_sum_of_others(table, 1.0)
    assert made.tolist() == [[-math.inf], [-math.inf]]
    (gradient,) = torch.autograd.grad(torch.logaddexp(made, torch.zeros(2, 1)).sum(), table)
    assert gradient.tolist() == [[[0.0] * 3]] * 2
