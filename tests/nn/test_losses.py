"""BPR and fusion by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from mbgraph.nn import bpr, mean_fusion, mean_of_rows, triple_margin


@pytest.mark.parametrize("margin", [-3.0, 0.0, 0.5, 4.0])
def test_bpr_by_hand(margin):
    expected = -math.log(1 / (1 + math.exp(-margin)))
    assert bpr(torch.tensor([margin]), gamma=0).item() == pytest.approx(expected, rel=1e-5)
    assert bpr(torch.tensor([margin])).item() == pytest.approx(expected, rel=1e-5)


def test_triple_margin_by_hand():
    users, positives, negatives = (
        torch.tensor(rows, requires_grad=True)
        for rows in ([[1.0, 2.0], [0.0, -1.0]], [[3.0, 1.0], [5.0, 2.0]], [[1.0, 1.0], [7.0, 4.0]])
    )
    margin = triple_margin(users, positives, negatives)
    assert margin.tolist() == [5 - 3, -2 + 4]
    derived = torch.autograd.grad(margin.sum(), (users, positives, negatives))
    assert derived[0].tolist() == [[2, 0], [-2, -2]]  # positive minus negative
    assert derived[1].tolist() == users.tolist()
    assert derived[2].tolist() == (-users).tolist()


def test_several_negatives_make_several_margins():
    generator = torch.Generator().manual_seed(0)
    users, positives = torch.randn(3, 4, generator=generator), torch.randn(3, 4, generator=generator)
    negatives = torch.randn(3, 2, 4, generator=generator)
    margins = triple_margin(users, positives, negatives)
    for column in range(2):
        assert_close(margins[:, column], triple_margin(users, positives, negatives[:, column]))


def test_the_mean_of_no_rows_is_a_zero_that_can_be_derived():
    assert mean_of_rows(torch.tensor([[1.0, 2.0], [3.0, 6.0]])).item() == 3.0
    nothing = torch.empty(0, 2, requires_grad=True)
    mean_of_rows(nothing).backward()
    assert mean_of_rows(nothing).item() == 0.0


def test_zero_margin_costs_ln_two():
    assert bpr(torch.zeros(1)).item() == pytest.approx(math.log(2), rel=1e-6)


def test_gamma_clips_and_softplus_does_not():
    far = torch.tensor([-60.0], requires_grad=True)
    assert bpr(far).item() == pytest.approx(-math.log(1e-10), rel=1e-4)
    assert bpr(far, gamma=0).item() == pytest.approx(60.0)
    assert bpr(torch.tensor(-200.0), gamma=0).item() == pytest.approx(200.0)  # whose sigmoid is 0
    (gradient,) = torch.autograd.grad(bpr(far, gamma=0).sum(), far)
    assert gradient.item() == pytest.approx(-1.0)


def test_mean_fusion():
    rows = [torch.randn(4, 3) for _ in range(3)]
    assert_close(mean_fusion(rows), torch.stack(rows).mean(0))
    assert_close(mean_fusion(rows[:1]), rows[0])
