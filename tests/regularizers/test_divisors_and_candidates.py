"""What norms of parameters are divided by, and contrasts among given candidates."""

import pytest
import torch
from torch.testing import assert_close

from mbgraph.regularizers import L2, StepOutputs
from mbgraph.regularizers.infonce import infonce_among

ROWS = torch.ones(5, 3)
USERS, ITEMS, WEIGHT = torch.full((4, 3), 2.0), torch.full((6, 3), 3.0), torch.full((3, 3), 0.5)


def outputs(rows=ROWS):
    return StepOutputs(
        "buy", ego={"buy": (rows, rows, rows)}, tables=(USERS, ITEMS), parameters={"transformation": WEIGHT}
    )


@pytest.mark.parametrize(
    ("power", "divide_by", "expected"),
    [
        (2, "nothing", 2.25),
        (2, "rows", 2.25 / 3),
        (2, "items", 2.25 / 6),
        (2, "batch", 2.25 / 10),
        (1, "nothing", 1.5),
        (1, "batch", 1.5 / 5),
    ],
)
def test_norms_of_parameters(power, divide_by, expected):
    made = L2(on="parameters", power=power, divide_by=divide_by)(outputs())
    assert float(made) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("divide_by", "expected"), [("nothing", 48 + 162), ("rows", 48 / 4 + 162 / 6), ("items", 35), ("batch", 21)]
)
def test_norms_of_tables(divide_by, expected):
    assert float(L2(on="tables", divide_by=divide_by)(outputs())) == pytest.approx(expected)


def test_a_batch_without_triples_has_no_norm_per_row():
    assert float(L2(on="parameters", divide_by="batch")(outputs(ROWS[:0]))) == 0


@pytest.mark.parametrize("block", [2, 100])
@pytest.mark.parametrize("include_positive", [True, False])
def test_contrast_among_candidates_is_that_of_a_loop(block, include_positive):
    generator = torch.Generator().manual_seed(1)
    anchor, positive, candidates = (
        torch.randn(count, 4, generator=generator, dtype=torch.float64, requires_grad=True) for count in (5, 5, 7)
    )
    made = infonce_among(anchor, positive, candidates, temperature=0.3, include_positive=include_positive, block=block)
    losses = []
    for row, own in zip(anchor, positive, strict=True):
        cosines = [torch.cosine_similarity(row, other, dim=0) / 0.3 for other in candidates]
        match = torch.cosine_similarity(row, own, dim=0) / 0.3
        total = sum(cosine.exp() for cosine in cosines) + (match.exp() if include_positive else 0)
        losses.append(total.log() - match)
    expected = torch.stack(losses).mean()
    assert_close(made, expected)
    tables = (anchor, positive, candidates)
    for one, two in zip(torch.autograd.grad(made, tables), torch.autograd.grad(expected, tables), strict=True):
        assert_close(one, two)
