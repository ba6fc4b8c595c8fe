"""Every regularizer: hand-derived values, loops, finite differences, and what all of them must do."""

import math

import pytest
import torch
from torch.testing import assert_close

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.regularizers import (
    L2,
    REGULARIZERS,
    InfoNCE,
    IRMv1,
    IRMv2,
    LinearWarmup,
    Regularizer,
    REx,
    StepOutputs,
    build_regularizer,
    gradient_variance,
    infonce,
    irm_penalty,
    regularizer_options,
    risk_variance,
    squared_risks,
    triple_norm,
)


def toy_outputs(table=None):
    """A step of a two-behavior dot-product model with a differentiable user table (another one may be given)."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    table = (drawn if table is None else table).requires_grad_()
    items = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    mix = {name: torch.randn(4, 4, generator=generator, dtype=torch.float64) for name in ("view", "buy")}
    triples = {name: (table[:4] @ mix[name], items[[0, 1, 2, 3]], items[[4, 4, 0, 1]]) for name in ("view", "buy")}
    margins = {name: ((u * p).sum(1) - (u * n).sum(1)) for name, (u, p, n) in triples.items()}
    return StepOutputs(
        target="buy",
        losses={"main": margins["buy"].sum()},
        risks={name: torch.nn.functional.softplus(-margin).mean() for name, margin in margins.items()},
        margins=margins,
        users={name: table @ mix[name] for name in mix},
        triples=triples,
        ego={"buy": (table[:4], items[[0, 1, 2, 3]], items[[4, 4, 0, 1]])},
        tables=(table, items),
    )


def loop_infonce(anchor, other, tau, direction, negatives, include_positive, reduction):
    """The definition, one pair at a time, in plain Python."""
    n = len(anchor)

    def cosine(x, y):
        return float((x @ y) / (x.norm() * y.norm()))

    def one(mine, theirs):
        values = []
        for u in range(n):
            positive = math.exp(cosine(mine[u], theirs[u]) / tau)
            pool = theirs if negatives == "cross" else mine
            total = sum(math.exp(cosine(mine[u], pool[v]) / tau) for v in range(n) if v != u)
            values.append(-math.log(positive / (total + (positive if include_positive else 0))))
        return values

    values = {"anchor": one(anchor, other), "other": one(other, anchor)}
    if direction == "both":
        chosen = [(x + y) / 2 for x, y in zip(values["anchor"], values["other"], strict=True)]
    else:
        chosen = values[direction]
    return sum(chosen) / (n if reduction == "mean" else 1)


@pytest.mark.parametrize("direction", ["both", "anchor", "other"])
@pytest.mark.parametrize("negatives", ["cross", "intra"])
@pytest.mark.parametrize("include_positive", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_infonce_equals_the_double_loop(direction, negatives, include_positive, reduction):
    anchor, other = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    options = {
        "direction": direction,
        "negatives": negatives,
        "include_positive": include_positive,
        "reduction": reduction,
    }
    made = infonce(anchor, other, temperature=0.3, **options)
    assert made.item() == pytest.approx(loop_infonce(anchor, other, 0.3, *options.values()), rel=1e-9)


def test_infonce_by_hand_written_derivative_equals_autograd():
    """The short cut for the published form: value, gradient, and the derivative of the gradient."""
    generator = torch.Generator().manual_seed(3)
    a, o = (torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in "ao")

    def short(a, o):
        return infonce(a, o, temperature=0.3, reduction="sum")

    def long(a, o):
        return (
            infonce(a, o, temperature=0.3, direction="anchor", reduction="sum")
            + infonce(a, o, temperature=0.3, direction="other", reduction="sum")
        ) / 2

    assert_close(short(a, o), long(a, o))
    for mine, reference in zip(
        torch.autograd.grad(short(a, o), (a, o)), torch.autograd.grad(long(a, o), (a, o)), strict=True
    ):
        assert_close(mine, reference)
    assert torch.autograd.gradcheck(short, (a, o))
    assert torch.autograd.gradgradcheck(short, (a, o))


def test_infonce_stays_finite_where_the_short_cut_would_not():
    a = torch.eye(3)
    assert_close(infonce(a, -a, temperature=0.001), torch.tensor(1000 + math.log(2.0)), rtol=1e-6, atol=0.0)
    assert_close(infonce(a, -a, temperature=0.026), torch.tensor(1 / 0.026 + math.log(2.0)), rtol=1e-5, atol=0.0)


def test_infonce_by_hand():
    # two orthogonal users, aligned with themselves: -log(e^{1/t} / (e^{1/t} + 1)), here t = 1
    rows = torch.eye(2)
    assert infonce(rows, rows, temperature=1.0).item() == pytest.approx(-math.log(math.e / (math.e + 1)), rel=1e-6)


def test_infonce_both_is_symmetric_and_scale_free():
    anchor, other = torch.randn(7, 4), torch.randn(7, 4)
    assert_close(infonce(anchor, other), infonce(other, anchor))
    assert_close(infonce(3 * anchor, 0.1 * other), infonce(anchor, other))


def test_infonce_without_the_positive_is_unbounded_below():
    """The printed Eq. 3 can fall without limit as the temperature's scale grows; the usual form cannot go below 0."""
    rows = torch.eye(3)
    printed = infonce(rows, rows, temperature=0.01, negatives="intra", include_positive=False)
    assert printed.item() < -90
    assert infonce(rows, rows, temperature=0.01).item() >= 0


def test_infonce_one_user_is_zero_without_positive():
    assert infonce(torch.randn(1, 3), torch.randn(1, 3), include_positive=False).item() == 0


def test_irm_penalty_is_the_squared_slope_at_scale_one():
    margins = [torch.randn(6, dtype=torch.float64), torch.randn(9, dtype=torch.float64)]
    step = 1e-6

    def risk(margin, scale):
        return torch.nn.functional.softplus(-scale * margin).mean().item()

    slopes = [(risk(margin, 1 + step) - risk(margin, 1 - step)) / (2 * step) for margin in margins]
    assert irm_penalty(margins).item() == pytest.approx(sum(slope**2 for slope in slopes), rel=1e-6)


def test_irm_penalty_is_zero_where_scale_one_is_optimal():
    # mean (1 - sigma(x)) x + (1 - sigma(-y)) (-y) = 0 for y solving y * sigma(y) = x * sigma(-x)
    x = 1.0
    wanted = x / (1 + math.exp(x))
    low, high = 0.0, 5.0
    for _ in range(80):
        y = (low + high) / 2
        low, high = (y, high) if y / (1 + math.exp(-y)) < wanted else (low, y)
    assert irm_penalty([torch.tensor([x, -y], dtype=torch.float64)]).item() == pytest.approx(0, abs=1e-12)


def test_irm_padded_rows_add_nothing_to_the_sum():
    real = torch.randn(4, dtype=torch.float64)
    padded = torch.cat([real, torch.zeros(4, dtype=torch.float64)])
    assert irm_penalty([padded]).item() == pytest.approx(irm_penalty([real]).item() / 4)


def test_squared_risks_by_hand():
    assert squared_risks([torch.tensor(0.5), torch.tensor(2.0)]).item() == pytest.approx(4.25)


def test_risk_variance_by_hand():
    risks = [torch.tensor(1.0), torch.tensor(2.0), torch.tensor(6.0)]
    assert risk_variance(risks).item() == pytest.approx(7.0)
    assert risk_variance(risks, unbiased=False).item() == pytest.approx(14 / 3)
    assert risk_variance(risks[:2]).item() == pytest.approx(0.5)
    assert risk_variance(risks[:1]).item() == 0
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


def test_triple_norm_by_hand():
    user, positive, negative = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.ones(2, 2), torch.zeros(2, 2)
    assert triple_norm(user, positive, negative).item() == pytest.approx((25 + 4) / 4)
    assert triple_norm(*[torch.zeros(0, 2)] * 3).item() == 0


def test_triple_norm_can_be_derived_twice():
    triple = [torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(triple_norm, triple)
    assert torch.autograd.gradgradcheck(triple_norm, triple)


def test_l2_on_three_things():
    outputs = toy_outputs()
    propagated = sum(triple_norm(*triple) for triple in outputs.triples.values())
    assert_close(L2(on="propagated")(outputs), propagated)
    assert_close(L2(on="ego")(outputs), triple_norm(*outputs.ego["buy"]))
    assert_close(L2(on="tables")(outputs), sum(table.square().sum() for table in outputs.tables))


def test_infonce_class_sums_or_averages_over_auxiliaries():
    outputs = toy_outputs()
    assert_close(InfoNCE()(outputs), infonce(outputs.users["buy"], outputs.users["view"]))
    doubled = StepOutputs(target="buy", users={**outputs.users, "cart": outputs.users["view"]})
    assert_close(InfoNCE()(doubled), 2 * InfoNCE()(outputs))
    assert_close(InfoNCE(reduce_behaviors="mean")(doubled), InfoNCE()(outputs))


def test_infonce_supported_only_leaves_users_out():
    outputs = toy_outputs()
    mask = torch.tensor([True, True, False, True, False, True])
    masked = StepOutputs(target="buy", users=outputs.users, user_mask={"view": mask})
    expected = infonce(outputs.users["buy"][mask], outputs.users["view"][mask])
    assert_close(InfoNCE(supported_only=True)(masked), expected)
    assert_close(InfoNCE(supported_only=False)(masked), InfoNCE()(outputs))


CASES = [
    InfoNCE(),
    InfoNCE(negatives="intra", include_positive=False, direction="other"),
    IRMv1(),
    IRMv1(scale_on="loss"),
    IRMv2(),
    IRMv2(of="parameters"),
    REx(),
    REx(unbiased=False),
    L2(),
    L2(on="ego"),
    L2(on="tables"),
]


@pytest.mark.parametrize("regularizer", CASES, ids=repr)
class TestConformance:
    """What every regularizer must do."""

    def test_gives_a_finite_scalar_that_moves_the_model(self, regularizer):
        outputs = toy_outputs()
        value = regularizer(outputs)
        assert value.shape == ()
        assert torch.isfinite(value)
        (gradient,) = torch.autograd.grad(value, outputs.tables[0])
        assert gradient.abs().max() > 0

    def test_gradient_equals_finite_differences(self, regularizer):
        outputs = toy_outputs()
        (gradient,) = torch.autograd.grad(regularizer(outputs), outputs.tables[0])
        table, step = outputs.tables[0].detach().clone(), 1e-6
        for index in [(0, 0), (3, 2)]:
            values = []
            for sign in (1, -1):
                moved = table.clone()
                moved[index] += sign * step
                values.append(regularizer(toy_outputs(moved)).item())
            assert gradient[index].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-8)

    def test_has_no_parameters_and_no_state(self, regularizer):
        assert not isinstance(regularizer, torch.nn.Module)
        before = dict(vars(regularizer))
        first, second = regularizer(toy_outputs()), regularizer(toy_outputs())
        assert_close(first, second)
        assert vars(regularizer) == before

    def test_options_round_trip(self, regularizer):
        again = build_regularizer(regularizer.name, regularizer_options(regularizer))
        assert repr(again) == repr(regularizer)

    def test_weight_and_schedule(self, regularizer):
        options = {**regularizer_options(regularizer), "weight": 0.5, "warmup": 4}
        warmed = build_regularizer(regularizer.name, options)
        assert [warmed.factor(epoch) for epoch in (1, 2, 4, 9)] == [0.125, 0.25, 0.5, 0.5]
        with pytest.raises(UsageError, match="must not be negative"):
            build_regularizer(regularizer.name, {"weight": -1})


def test_every_registered_regularizer_has_a_conformance_case():
    assert {type(case) for case in CASES} == {REGULARIZERS.get(name) for name in REGULARIZERS}


def test_irmv1_and_irmv2_agree_on_scores():
    outputs = toy_outputs()
    assert_close(IRMv1()(outputs), IRMv2()(outputs))
    assert IRMv2(of="parameters").double_backward
    assert not IRMv2().double_backward


def test_anyone_can_write_one():
    class Spread(Regularizer):
        name = "spread"

        def __call__(self, outputs):
            return -outputs.users[outputs.target].var()

    assert Spread(2.0)(toy_outputs()).item() < 0


def test_errors_name_the_remedy():
    with pytest.raises(UnknownNameError, match="unknown direction 'boht'; did you mean 'both'"):
        InfoNCE(direction="boht")
    with pytest.raises(UsageError, match="temperature must be positive"):
        InfoNCE(temperature=0)
    with pytest.raises(UnknownNameError, match="option of regularizer 'rex' 'wieght'; did you mean 'weight'"):
        build_regularizer("rex", {"wieght": 1})
    with pytest.raises(UnknownNameError, match="did you mean 'rex'"):
        build_regularizer("rexx", {})
    with pytest.raises(UsageError, match="infonce needs an auxiliary behavior"):
        InfoNCE()(StepOutputs(target="buy", users={"buy": torch.randn(2, 2)}))
    with pytest.raises(UsageError, match="rex needs 'risks'"):
        REx()(StepOutputs(target="buy"))
    with pytest.raises(UsageError, match="warmup must be at least 1"):
        LinearWarmup(0)
    for bad in (IRMv1, IRMv2, L2):
        with pytest.raises(UnknownNameError):
            bad(1.0, "nothing")
