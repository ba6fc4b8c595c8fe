"""Draws of a step: the same whenever asked, others by name, step and epoch."""

import pytest
import torch

from mbgraph.models import StepContext


def test_uniform_numbers_belong_to_seed_epoch_step_and_name():
    made = StepContext(2, 3, 4).uniform("a", (5, 2))
    assert made.shape == (5, 2)
    assert torch.equal(made, torch.rand(5, 2, generator=StepContext(2, 3, 4).generator("a")))
    others = [StepContext(1, 3, 4), StepContext(2, 1, 4), StepContext(2, 3, 1)]
    assert not any(torch.equal(made, other.uniform("a", (5, 2))) for other in others)
    assert not torch.equal(made, StepContext(2, 3, 4).uniform("b", (5, 2)))


def test_dropout_keeps_the_mean_and_scales_the_gradient():
    rows = torch.ones(400, 50, requires_grad=True)
    made = StepContext().dropout(rows, 0.3, "a")
    assert sorted(made.detach().unique().tolist()) == pytest.approx([0.0, 1 / 0.7])
    assert float((made == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    made.sum().backward()
    assert torch.equal(rows.grad, made.detach())
    assert StepContext().dropout(rows, 0.0, "a") is rows


def test_dropouts_of_a_step_differ_and_repeat():
    rows, context = torch.ones(30, 20), StepContext(1, 2, 3)
    first, again = context.dropouts(0.5), context.dropouts(0.5)
    made = [first(rows), first(rows)]
    assert not torch.equal(*made)
    assert all(torch.equal(one, again(rows)) for one in made)
    assert torch.equal(made[1], context.dropout(rows, 0.5, "dropout 2"))
