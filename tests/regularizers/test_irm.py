"""Invariance penalties: hand-derived values, closed forms, finite differences."""

import math

import pytest
import torch
from torch.testing import assert_close

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.regularizers import (
    IRMv1,
    IRMv2,
    REx,
    StepOutputs,
    gradient_variance,
    irm_penalty,
    risk_variance,
    squared_risks,
)
from mbgraph.testing.regularizers import toy_leaves, toy_step


def rows(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shapes", [((6,), (9,)), ((6, 2), (9, 3))])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_penalty_is_the_squared_slope_at_scale_one(shapes, is_weighted):
    """By finite differences of the weighted mean risk; one of the two environments has weights."""
    margins = [rows(*shape, seed=number) for number, shape in enumerate(shapes)]
    weights = [torch.tensor([1.0, 0.0, 0.5, 2.0, 1.0, 3.0], dtype=torch.float64), None] if is_weighted else None
    step = 1e-6

    def risk(margin, weight, scale):
        values = torch.nn.functional.softplus(-scale * margin)
        values = values if values.ndim == 1 else values.mean(1)
        return (values.mean() if weight is None else (values * weight).sum() / weight.sum()).item()

    pairs = list(zip(margins, weights or [None, None], strict=True))
    slopes = [(risk(*pair, 1 + step) - risk(*pair, 1 - step)) / (2 * step) for pair in pairs]
    assert irm_penalty(margins, weights).item() == pytest.approx(sum(slope**2 for slope in slopes), rel=1e-6)


def test_the_penalty_is_zero_where_scale_one_is_optimal():
    # mean (1 - sigma(x)) x + (1 - sigma(-y)) (-y) = 0 for y solving y * sigma(y) = x * sigma(-x)
    x = 1.0
    wanted = x / (1 + math.exp(x))
    low, high = 0.0, 5.0
    for _ in range(80):
        y = (low + high) / 2
        low, high = (y, high) if y / (1 + math.exp(-y)) < wanted else (low, y)
    assert irm_penalty([torch.tensor([x, -y], dtype=torch.float64)]).item() == pytest.approx(0, abs=1e-12)


def test_padded_rows_add_nothing_to_the_sum():
    real = rows(4)
    padded = torch.cat([real, torch.zeros(4, dtype=torch.float64)])
    assert irm_penalty([padded]).item() == pytest.approx(irm_penalty([real]).item() / 4)


def test_no_rows_contribute_nothing():
    real = rows(4)
    assert irm_penalty([]).item() == 0
    assert irm_penalty([torch.empty(0)]).item() == 0
    assert_close(irm_penalty([real, torch.empty(0, dtype=torch.float64)]), irm_penalty([real]))
    assert irm_penalty([real], [torch.zeros(4, dtype=torch.float64)]).item() == 0


def test_squared_risks_by_hand():
    assert squared_risks([torch.tensor(0.5), torch.tensor(2.0)]).item() == pytest.approx(4.25)
    assert squared_risks([]).item() == 0


def test_risk_variance_by_hand():
    risks = [torch.tensor(1.0), torch.tensor(2.0), torch.tensor(6.0)]
    assert risk_variance(risks).item() == pytest.approx(7.0)
    assert risk_variance(risks, unbiased=False).item() == pytest.approx(14 / 3)
    assert risk_variance(risks[:2]).item() == pytest.approx(0.5)
    assert risk_variance(risks[:1]).item() == 0
    assert risk_variance([]).item() == 0
    assert risk_variance([risks[0]] * 3).item() == 0


def test_gradient_variance_by_hand():
    parameter = torch.tensor([1.0, 2.0], requires_grad=True)
    risks = [parameter.square().sum(), 3 * parameter.sum()]  # gradients (2, 4) and (3, 3)
    value = gradient_variance(risks, parameter)
    assert value.item() == pytest.approx((0.5 + 0.5) / 2)
    (second,) = torch.autograd.grad(value, parameter)
    # d/dp of mean_k ((2 p_k - 3)^2 / 2) = (2 p_k - 3) * 2 / 2
    assert_close(second, torch.tensor([-1.0, 1.0]))
    assert gradient_variance(risks[:1], parameter).item() == 0
    assert gradient_variance([], parameter).item() == 0


def test_the_classes_read_their_entries():
    step = toy_step(toy_leaves())
    risks, margins = list(step.risks.values()), list(step.margins.values())
    weights = [step.row_weights.get(name) for name in step.margins]
    assert sum(weight is None for weight in weights) == 2
    assert_close(IRMv1()(step), irm_penalty(margins, weights))
    assert_close(IRMv2()(step), irm_penalty(margins, weights))
    assert irm_penalty(margins).item() != pytest.approx(irm_penalty(margins, weights).item())
    assert_close(IRMv1(scale_on="loss")(step), squared_risks(risks))
    assert_close(IRMv2(of="parameters")(step), gradient_variance(risks, step.tables[0]))
    assert_close(REx()(step), risk_variance(risks))
    assert_close(REx(unbiased=False)(step), risk_variance(risks, unbiased=False))


def test_weights_of_one_change_nothing():
    leaves = toy_leaves()
    ones = {name: torch.ones(4, dtype=torch.float64) for name in ("view", "cart", "buy")}
    assert_close(IRMv1()(toy_step(leaves, row_weights=ones)), IRMv1()(toy_step(leaves, row_weights=None)))


def test_errors_name_the_remedy():
    nothing = StepOutputs("buy")
    for made, entry in (
        (REx(), "risks"),
        (IRMv1(), "margins"),
        (IRMv1(scale_on="loss"), "risks"),
        (IRMv2(), "margins"),
    ):
        with pytest.raises(
            UsageError, match=f"{made.name} needs '{entry}', which .*leave it out: --regularizer {made.name}"
        ):
            made(nothing)
    with pytest.raises(UsageError, match="irmv2 needs 'tables'"):
        IRMv2(of="parameters")(toy_step(toy_leaves(), tables=None))
    with pytest.raises(UnknownNameError, match="scale_on of regularizer 'irmv1' 'score'; did you mean 'scores'"):
        IRMv1(scale_on="score")
    with pytest.raises(UnknownNameError, match="of of regularizer 'irmv2' 'parameter'; did you mean 'parameters'"):
        IRMv2(of="parameter")
