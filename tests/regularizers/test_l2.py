"""Norms by hand: what they act on, their power, what they are divided by."""

import pytest
import torch
from torch.testing import assert_close

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.regularizers import L2, StepOutputs, triple_norm
from mbgraph.testing.regularizers import toy_leaves, toy_step


def test_the_norm_of_triples_by_hand():
    user, positive, negative = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.ones(2, 2), 2 * torch.ones(2, 2)
    assert triple_norm(user, positive, negative).item() == pytest.approx((25 + 4 + 16) / 4)
    assert triple_norm(user, positive, None).item() == pytest.approx((25 + 4) / 4)
    assert triple_norm(user, positive, negative, power=1).item() == pytest.approx((5 + 2 + 4) / 2)
    assert triple_norm(user, positive, None, power=1).item() == pytest.approx((5 + 2) / 2)
    assert triple_norm(user, positive, torch.ones(2, 3, 2)).item() == pytest.approx((25 + 4 + 12) / 4)


def test_weights_of_rows_by_hand():
    user, positive, negative = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.ones(2, 2), torch.zeros(2, 2)
    weights = torch.tensor([2.0, 0.0])
    assert triple_norm(user, positive, negative, weights=weights).item() == pytest.approx((2 * 25 + 2 * 2) / 4)
    several = torch.ones(2, 3, 2)
    assert triple_norm(user, positive, several, weights=weights).item() == pytest.approx((2 * (25 + 2 + 6)) / 4)
    norms = triple_norm(user, positive, None, power=1, weights=weights).item()
    assert norms == pytest.approx((50**0.5 + 4**0.5) / 2)


def test_no_rows_have_no_norm():
    for power in (1, 2):
        nobody = torch.zeros(0, 2, requires_grad=True)
        value = triple_norm(nobody, nobody, nobody, power=power)
        assert value.item() == 0
        value.backward()


@pytest.mark.parametrize("power", [1, 2])
def test_the_norm_can_be_derived_twice(power):
    generator = torch.Generator().manual_seed(0)
    triple = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
              for shape in ((3, 2), (3, 2), (3, 2, 2))]  # fmt: skip
    weights = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)

    def run(*given):
        return triple_norm(*given, power=power, weights=weights)

    assert torch.autograd.gradcheck(run, triple)
    assert torch.autograd.gradgradcheck(run, triple)


def whole(table, power):
    return table.square().sum() if power == 2 else table.square().sum().sqrt()


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("negatives", [True, False])
def test_propagated_rows_of_every_behavior_and_table_rows_of_the_target(power, negatives):
    step = toy_step(toy_leaves())
    weights = step.row_weights

    def norm(name, triple):
        user, positive, negative = triple
        return triple_norm(user, positive, negative if negatives else None, power=power, weights=weights.get(name))

    propagated = sum(norm(name, triple) for name, triple in step.triples.items())
    assert len(step.triples) == 3
    assert_close(L2(power=power, negatives=negatives)(step), propagated)
    assert_close(L2(on="ego", power=power, negatives=negatives)(step), norm("buy", step.ego["buy"]))
    assert L2()(step).item() != pytest.approx(L2()(toy_step(toy_leaves(), row_weights=None)).item())


@pytest.mark.parametrize("power", [1, 2])
def test_whole_tables_and_what_they_are_divided_by(power):
    step = toy_step(toy_leaves())
    users, items = (whole(table, power) for table in step.tables)
    assert (len(step.tables[0]), len(step.tables[1])) == (6, 5)
    for divide_by, expected in (
        ("nothing", users + items),
        ("rows", users / 6 + items / 5),
        ("items", (users + items) / 5),
        ("batch", (users + items) / (4 * power)),  # of four target triples
    ):
        assert_close(L2(on="tables", power=power, divide_by=divide_by)(step), expected)


@pytest.mark.parametrize("power", [1, 2])
def test_other_parameters(power):
    gates = {"one": torch.tensor([[3.0, 4.0]]), "two": torch.tensor([2.0])}
    value = L2(on="parameters", power=power)(toy_step(toy_leaves(), parameters=gates)).item()
    assert value == pytest.approx(25 + 4 if power == 2 else 5 + 2)
    for divide_by, expected in (
        ("rows", 25 + 4 if power == 2 else 5 + 2),
        ("items", 29 / 5 if power == 2 else 7 / 5),
        ("batch", 29 / 8 if power == 2 else 7 / 4),
    ):
        made = L2(on="parameters", power=power, divide_by=divide_by)(toy_step(toy_leaves(), parameters=gates))
        assert made.item() == pytest.approx(expected)


def test_a_batch_without_triples_has_no_norm_per_row():
    gates = {"one": torch.ones(2, 2)}
    step = toy_step(toy_leaves(), is_empty=True, parameters=gates)
    assert L2(on="parameters", divide_by="batch")(step).item() == 0


def test_entries_that_are_empty_contribute_nothing():
    for on, entry in (("propagated", "triples"), ("ego", "ego"), ("parameters", "parameters")):
        assert L2(on=on)(toy_step(toy_leaves(), **{entry: {}})).item() == 0


def test_errors_name_the_remedy():
    for on, entry in (("propagated", "triples"), ("ego", "ego"), ("tables", "tables"), ("parameters", "parameters")):
        with pytest.raises(UsageError, match=f"l2 needs '{entry}', which this model does not give; leave it out"):
            L2(on=on)(StepOutputs("buy"))
    with pytest.raises(UnknownNameError, match="on of regularizer 'l2' 'table'; did you mean 'tables'"):
        L2(on="table")
    with pytest.raises(UsageError, match="power of regularizer 'l2' must be one of 1, 2, got 3"):
        L2(power=3)
