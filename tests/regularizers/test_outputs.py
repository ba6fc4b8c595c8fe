"""A step's entries, and regularizers by name: what is made, changed, refused, and written by somebody else."""

import pytest
import torch

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.regularizers import L2, InfoNCE, Regularizer, REx, StepOutputs, changed, make_regularizer, once
from mbgraph.regularizers.base import parse_regularizer
from mbgraph.testing import RegularizerCases
from mbgraph.testing.regularizers import toy_leaves, toy_step


def test_an_entry_is_made_once_and_only_when_it_is_read():
    calls = []

    def tables():
        calls.append(1)
        return (torch.ones(2, 2),)

    step = StepOutputs("buy", tables=tables, risks=lambda: pytest.fail("nobody reads the risks"))
    assert calls == []
    L2(on="tables")(step)
    L2(on="tables", power=1)(step)
    assert step.tables[0] is step.get("tables")[0]
    assert calls == [1]


def test_entries_made_of_one_another_share_what_they_are_made_of():
    calls = []

    @once
    def margins():
        calls.append(1)
        return {"buy": torch.ones(3)}

    step = StepOutputs("buy", margins=margins, risks=lambda: {name: rows.sum() for name, rows in margins().items()})
    assert calls == []
    assert step.risks == {"buy": torch.tensor(3.0)}
    assert step.margins is margins()
    assert calls == [1]


def test_not_given_and_none_of_it_are_two_things():
    step = StepOutputs("buy", risks={}, margins=lambda: {})
    assert REx()(step).item() == 0
    assert step.need("margins", "irmv1") == {}
    assert step.get("triples") is None
    assert step.triples == {}  # for reading along; what needs it asks with need
    with pytest.raises(
        UsageError, match="l2 needs 'triples', which this model does not give; leave it out: --regularizer"
    ):
        L2()(step)
    with pytest.raises(AttributeError, match="a step has no entry 'trples'"):
        _ = step.trples


def test_losses_are_copied():
    losses = {"main": torch.zeros(())}
    step = StepOutputs("buy", losses=losses)
    losses["other"] = torch.ones(())
    assert set(step.losses) == {"main"}
    assert StepOutputs("buy").losses == {}


# --- by name --------------------------------------------------------------------------------------------------------


def test_make_and_parse():
    assert make_regularizer({"name": "rex", "weight": 0.5, "unbiased": False}) == REx(weight=0.5, unbiased=False)
    text = parse_regularizer("infonce: weight=0.5, supported_only=off,temperature = .2")
    assert text == {"name": "infonce", "weight": "0.5", "supported_only": "off", "temperature": ".2"}
    assert make_regularizer(text) == InfoNCE(weight=0.5, supported_only=False, temperature=0.2)
    assert parse_regularizer("rex") == {"name": "rex"}
    assert make_regularizer({"name": "l2", "power": "1"}) == L2(power=1)


def test_a_change_keeps_the_other_options_of_the_term():
    own = (InfoNCE(supported_only=True, temperature=0.3), REx(weight=2.0))
    made = changed(own, [{"name": "infonce", "weight": "0.5"}])
    assert made == (InfoNCE(supported_only=True, temperature=0.3, weight=0.5), REx(weight=2.0))
    made = changed(own, [{"name": "l2", "on": "tables"}, {"name": "rex", "weight": 0}])
    assert made == (own[0], REx(weight=0.0), L2(on="tables"))
    assert changed(own, []) == own


def test_terms_of_one_kind_are_told_apart_by_their_labels():
    own = (InfoNCE(label="users"), InfoNCE(label="items", side="item"))
    made = changed(own, [{"name": "infonce", "label": "items", "weight": 0.5}])
    assert made == (own[0], InfoNCE(label="items", side="item", weight=0.5))
    assert changed(own, [{"name": "infonce", "label": "third"}])[2] == InfoNCE(label="third")
    with pytest.raises(UsageError, match=r"several terms of 'infonce': users, items; name one: infonce:label=users"):
        changed(own, [{"name": "infonce", "weight": 0.5}])


def test_errors_name_the_remedy():
    with pytest.raises(UnknownNameError, match="option of regularizer 'rex' 'wieght'; did you mean 'weight'"):
        make_regularizer({"name": "rex", "wieght": 1})
    with pytest.raises(UnknownNameError, match="did you mean 'rex'"):
        make_regularizer({"name": "rexx"})
    with pytest.raises(
        UsageError, match="warmup of regularizer 'rex' must be a whole number from 0 to 1000000, got -1"
    ):
        REx(warmup=-1)
    with pytest.raises(UsageError, match="label of regularizer 'rex' must be text"):
        REx(label="two words")
    with pytest.raises(UsageError, match="write it as key=value"):
        parse_regularizer("rex:weight")


# --- by somebody else -----------------------------------------------------------------------------------------------


class Spread(Regularizer):
    name = "spread"

    scale: float = 1.0
    """Factor inside."""

    def __call__(self, outputs):
        anchors = outputs.need("anchors", self.name)["user"]
        rows = self.scale * anchors[outputs.target]
        return -rows.square().sum() / max(len(rows), 1)


class TestSpread(RegularizerCases):
    regularizer = Spread
    variants = ({}, {"scale": 2.0})


class Detached(Spread):
    def __call__(self, outputs):
        rows = outputs.need("anchors", self.name)["user"][outputs.target]
        return (rows.detach() * rows).sum() / max(len(rows), 1)


class NanOfNothing(Spread):
    def __call__(self, outputs):
        return outputs.need("anchors", self.name)["user"][outputs.target].square().mean()


class Constant(Spread):
    def __call__(self, outputs):
        return 0.0 * super().__call__(outputs)


class Once(torch.autograd.Function):
    """A square whose gradient is taken for a constant."""

    @staticmethod
    def forward(ctx, rows):
        ctx.kept = rows.detach()
        return rows.square().sum()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.kept * gradient


class DerivesOnce(Spread):
    def __call__(self, outputs):
        rows = outputs.need("anchors", self.name)["user"][outputs.target]
        return Once.apply(rows) / max(len(rows), 1)


class Reader(Spread):
    """Reads past the door."""

    def __call__(self, outputs):
        anchors = outputs.anchors.get("user", {})
        return anchors["buy"].square().sum() if "buy" in anchors else torch.zeros(())


class Growing(Spread):
    def __call__(self, outputs):
        calls.append(1)
        return len(calls) * super().__call__(outputs)


class Vector(Spread):
    def __call__(self, outputs):
        return super().__call__(outputs).unsqueeze(0)


calls = []


@pytest.mark.parametrize(
    ("broken", "case"),
    [
        (Constant, "test_gives_a_finite_scalar_that_moves_the_model"),
        (Vector, "test_gives_a_finite_scalar_that_moves_the_model"),
        (Detached, "test_gradients_equal_finite_differences"),
        (DerivesOnce, "test_can_be_derived_twice"),
        (Growing, "test_holds_no_state"),
        (NanOfNothing, "test_an_empty_batch_contributes_nothing"),
    ],
)
def test_the_cases_notice(broken, case):
    """Each case fails for a regularizer that breaks its rule, and passes for one that does not."""
    cases = type("Cases", (RegularizerCases,), {"regularizer": broken})()
    getattr(cases, case)(Spread())
    with pytest.raises(AssertionError):
        getattr(cases, case)(broken())


def test_the_cases_notice_a_term_that_hides_what_is_missing():
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        RegularizerCases().test_what_a_model_does_not_give_is_an_error(Reader())


def test_a_toy_step_gives_every_entry():
    step, empty = toy_step(toy_leaves()), toy_step(toy_leaves(), is_empty=True)
    for name in step._entries:
        assert step.get(name), name
        assert empty.get(name) is not None, name
