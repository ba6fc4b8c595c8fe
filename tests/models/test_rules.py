"""Update rules: optimizers by hand, and the balance of gradients against arrays of published code."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mbgraph.models import GradientBalance, TrainingOptions, UpdateRule
from mbgraph.testing import assert_matches

GOLDEN = "mbssl"


class Toy(nn.Module):
    """Two parameters that learn and one that does not."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.one = nn.Parameter(torch.randn(3, 2, generator=generator))
        self.two = nn.Parameter(torch.randn(4, generator=generator))
        self.fixed = nn.Parameter(torch.ones(2), requires_grad=False)

    def terms(self):
        return {"main": self.one.square().sum() + self.two.sin().sum(), "norm": 0.3 * self.two.square().sum()}


def values(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).numpy().astype(np.float64)


def gradient(state):
    """Return the gradient of the sum of `Toy.terms`: (13,)."""
    one, two = state[:6], state[6:10]
    return np.concatenate([2 * one, np.cos(two) + 0.6 * two, np.zeros(3)])[:12]


def by_hand(optimizer, state, steps, lr, decay, factor=1.0, every=1000):
    """The published formulas in float64; Adam's constants are its paper's."""
    first, second = np.zeros(12), np.zeros(12)
    learned = np.arange(12) < 10
    for step in range(1, steps + 1):
        rate = lr * factor ** ((step - 1) // every)
        slope = gradient(state)
        if optimizer != "adamw":
            slope = slope + decay * state  # coupled
        if optimizer == "sgd":
            change = rate * slope
        else:
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            change = rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            if optimizer == "adamw":
                change = change + rate * decay * state
        state = np.where(learned, state - change, state)
    return state


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("decay", [0.0, 0.2])
@pytest.mark.parametrize(("factor", "every"), [(1.0, 1000), (0.5, 2)])
def test_every_optimizer_by_hand(optimizer, decay, factor, every):
    model = Toy()
    expected = by_hand(optimizer, values(model), 5, 0.05, decay, factor, every)
    training = TrainingOptions(optimizer=optimizer, lr=0.05, weight_decay=decay, lr_decay=factor, lr_decay_steps=every)
    rule = UpdateRule(model, training)
    for _ in range(5):
        rule.step(model.terms())
    np.testing.assert_allclose(values(model), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_weight_decay_reaches_every_parameter(optimizer):
    """A parameter far from its optimum by nothing but decay moves towards zero."""
    model = Toy()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    flat = 0.0 * (model.one.sum() + model.two.sum())
    UpdateRule(model, TrainingOptions(optimizer=optimizer, lr=0.01, weight_decay=0.5)).step({"flat": flat})
    assert bool((model.one.abs() < before["one"].abs()).all())
    assert bool((model.two.abs() < before["two"].abs()).all())
    assert torch.equal(model.fixed, before["fixed"])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_saved_state_goes_on_alike(optimizer):
    training = TrainingOptions(optimizer=optimizer, lr=0.05, weight_decay=0.1, lr_decay=0.5, lr_decay_steps=3)
    whole, cut = Toy(), Toy()
    rule = UpdateRule(whole, training)
    for _ in range(8):
        rule.step(whole.terms())
    first = UpdateRule(cut, training)
    for _ in range(4):
        first.step(cut.terms())
    second = UpdateRule(cut, training)
    second.load_state_dict(first.state_dict())
    for _ in range(4):
        second.step(cut.terms())
    assert np.array_equal(values(whole), values(cut))


def test_terms_without_a_gradient_are_constants():
    one, two = Toy(), Toy()
    training = TrainingOptions(lr=0.05)
    UpdateRule(one, training).step({**one.terms(), "logged": torch.tensor(3.0)})
    UpdateRule(two, training).step(two.terms())
    assert np.array_equal(values(one), values(two))


def test_a_step_of_constants_updates_nothing():
    """Neither by decay nor by the momentum of the step before; but it is a step of the schedule."""
    model = Toy()
    rule = UpdateRule(model, TrainingOptions(lr=0.05, weight_decay=0.5, lr_decay=0.5, lr_decay_steps=2))
    rule.step(model.terms())
    before = values(model)
    rule.step({"main": torch.tensor(0.0), "other": torch.tensor(1.0)})
    assert np.array_equal(values(model), before)
    assert rule.optimizer.param_groups[0]["lr"] == 0.025


def test_a_gradient_is_not_added_to_the_one_before():
    model = Toy()
    rule = UpdateRule(model, TrainingOptions(optimizer="sgd", lr=0.0001))
    for _ in range(3):
        rule.step(model.terms())
    assert_close(model.one.grad, 2 * model.one.detach(), rtol=1e-3, atol=1e-4)


# --- the balance of gradients ---------------------------------------------------------------------------------------


class Linear(nn.Module):
    """Parameters and terms whose gradients are the stored ones, whatever the parameters."""

    def __init__(self, z):
        super().__init__()
        self.z = z
        for name in z["param_order_in_reference"].tolist():
            self.register_parameter(name, nn.Parameter(torch.from_numpy(z[f"param_{name}"].copy())))

    def terms(self, *names):
        return {
            term: sum(
                (torch.from_numpy(self.z[f"grad_{name}__{term}"]) * parameter).sum()
                for name, parameter in self.named_parameters()
            )
            for term in names
        }


def balance(z, model, **options):
    training = TrainingOptions(optimizer="sgd", lr=1e-3)
    return GradientBalance(model, training, main="rec", beta=float(z["hp_meta_beta"]), relax=float(z["hp_meta_relax"]),
                           unbalanced=("emb",), **options)  # fmt: skip


def term_names(z):
    return ("rec", "ssl", *(f"ssl2_{name}" for name in z["behaviors"].tolist()[:-1]))


def test_two_balanced_steps(arrays):
    z = arrays
    model = Linear(z)
    rule = balance(z, model)
    for step in (1, 2):
        rule.step(model.terms(*term_names(z), "emb"))
        assert rule.exempt == str(z["hmg_nonshared_parameter"])
        for name, parameter in model.named_parameters():
            assert_matches(parameter.grad, z[f"grad_{name}__hmg_step{step}"])


def test_without_the_unbalanced_term(arrays):
    z = arrays
    model = Linear(z)
    balance(z, model).step(model.terms(*term_names(z)))
    for name, parameter in model.named_parameters():
        assert_matches(parameter.grad, z[f"grad_{name}__hmg_step1_without_emb"])


def test_a_balance_resumes_with_its_norms(arrays):
    z = arrays
    model, twin = Linear(z), Linear(z)
    rule = balance(z, model)
    rule.step(model.terms(*term_names(z), "emb"))
    again = balance(z, twin)
    again.load_state_dict(rule.state_dict())
    again.step(twin.terms(*term_names(z), "emb"))
    for name, parameter in twin.named_parameters():
        assert_matches(parameter.grad, z[f"grad_{name}__hmg_step2"])


def test_a_first_batch_without_rows_exempts_nobody(arrays):
    z = arrays
    model, plain = Linear(z), Linear(z)
    rule, other = balance(z, model), balance(z, plain)
    names = (*term_names(z), "emb")
    rule.step({name: 0.0 * term for name, term in model.terms(*names).items()})
    assert rule.exempt is None
    for one, made in ((rule, model), (other, plain)):
        one.step(made.terms(*names))
    assert rule.exempt == other.exempt == str(z["hmg_nonshared_parameter"])


def test_terms_may_share_what_they_are_made_of():
    """One embedding that all terms read is derived for each of them."""
    model = Toy()
    shared = model.one.exp().sum()
    rule = GradientBalance(model, TrainingOptions(optimizer="sgd", lr=1.0), main="main", relax=0.0)
    before = model.one.detach().clone()
    rule.step({"main": 2 * shared, "other": shared + model.two.sum(), "more": 0.5 * shared})
    assert_close(model.one.detach(), before - 3.5 * before.exp())


def test_the_balance_by_hand():
    """An auxiliary gradient twice as large that points against the main one, and one that is small."""
    model = nn.Module()
    model.p = nn.Parameter(torch.zeros(2))
    rule = GradientBalance(model, TrainingOptions(optimizer="sgd", lr=1.0), main="main", beta=0.5, relax=0.75)
    main, large, small = torch.tensor([3.0, 0.0]), torch.tensor([-6.0, 8.0]), torch.tensor([-1.0, 0.0])
    terms = {name: (slope * model.p).sum() for name, slope in (("main", main), ("large", large), ("small", small))}
    rule.step(terms)
    # norms 3, 10, 1, each halved; the large one keeps (0, 8), of which .75 is scaled by 3 / 10
    expected = main + 0.75 * 0.3 * torch.tensor([0.0, 8.0]) + 0.25 * torch.tensor([0.0, 8.0]) + small
    assert_close(model.p.grad, expected)
    assert rule.norms["p"] == {"main": 1.5, "large": 5.0, "small": 0.5}
    rule.step({name: (slope * model.p).sum() for name, slope in (("main", main), ("small", small))})
    assert rule.norms["p"] == {"main": 2.25, "large": 5.0, "small": 0.75}  # a term that rests keeps its norm
    assert_close(model.p.grad, main + small)


def linear(model, **slopes):
    """Return terms by their gradients: one number for each of the model's parameters, none where a term lacks it."""
    return {
        term: sum(slope * parameter.sum() for slope, parameter in zip(own, model.parameters(), strict=True) if slope)
        for term, own in slopes.items()
    }


def two_parameters():
    model = nn.Module()
    model.first, model.second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    return model


def test_the_exempt_parameter_s_gradients_are_only_added():
    """The first auxiliary term does not reach the second parameter; another does, against the main one."""
    model = two_parameters()
    rule = GradientBalance(model, TrainingOptions(optimizer="sgd", lr=1.0), main="main", beta=0.5, relax=0.75)
    rule.step(linear(model, main=(2.0, 2.0), near=(8.0, None), far=(8.0, -8.0)))
    assert rule.exempt == "second"
    assert model.second.grad.item() == pytest.approx(2 - 8)
    scaled = 0.75 * 2 / 8 * 8 + 0.25 * 8
    assert model.first.grad.item() == pytest.approx(2 + 2 * scaled)
    rule.step(linear(model, main=(2.0, 2.0), near=(8.0, 8.0), far=(8.0, -8.0)))
    assert model.second.grad.item() == pytest.approx(2)  # once exempt it stays so


def test_a_resumed_balance_knows_the_norms_of_the_steps_before():
    """Gradients that change: what a term weighs hangs on how large it was, and so does who is exempt."""
    training = TrainingOptions(optimizer="sgd", lr=1.0)
    model, twin = two_parameters(), two_parameters()
    options = {"main": "main", "beta": 0.5, "relax": 0.75}
    rule, again = GradientBalance(model, training, **options), GradientBalance(twin, training, **options)
    rule.step(linear(model, main=(2.0, 2.0), near=(16.0, None)))
    again.load_state_dict(rule.state_dict())
    for one, other in ((rule, model), (again, twin)):
        one.step(linear(other, main=(2.0, 2.0), near=(4.0, 4.0)))
        # norms: main 1 then 1.5, near 8 then 6
        assert other.first.grad.item() == pytest.approx(2 + 0.75 * 1.5 / 6 * 4 + 0.25 * 4)
        assert other.second.grad.item() == pytest.approx(2 + 4)
    assert again.state_dict()["norms"] == rule.state_dict()["norms"]


def test_a_balance_without_its_main_term_adds():
    model = nn.Module()
    model.p = nn.Parameter(torch.zeros(2))
    rule = GradientBalance(model, TrainingOptions(optimizer="sgd", lr=1.0), main="main")
    rule.step({"one": 2 * model.p.sum(), "two": 5 * model.p.sum()})
    assert model.p.grad.tolist() == [7.0, 7.0]
