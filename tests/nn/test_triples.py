"""Rows of triples and their margins by hand."""

import pytest
import torch
from torch.testing import assert_close

from mbgraph.nn import negative_columns, part_triple, triple_at, triple_margin


@pytest.mark.parametrize("negatives", [[2, 0, 2], [[2, 3], [0, 0], [1, 2]]])
def test_rows_of_triples_are_the_same_picked_or_parted(negatives):
    generator = torch.Generator().manual_seed(0)
    tables = (torch.randn(5, 2, generator=generator), torch.randn(4, 2, generator=generator))
    numbers = (torch.tensor([4, 0, 0]), torch.tensor([1, 1, 3]), torch.tensor(negatives))
    picked = triple_at(tables, numbers)
    items = tables[1][torch.cat([numbers[1], numbers[2].flatten()])]
    parted = part_triple(tables[0][numbers[0]], items, numbers[2])
    for which, rows, same in zip(numbers, picked, parted, strict=True):
        assert rows.shape == (*which.shape, 2)
        assert torch.equal(rows, same)
    assert negative_columns(numbers[2]).tolist() == ([[2], [0], [2]] if numbers[2].ndim == 1 else negatives)
    assert torch.equal(picked[0][0], tables[0][4])
    assert torch.equal(picked[1][2], tables[1][3])
    assert torch.equal(picked[2].reshape(-1, 2)[0], tables[1][2])


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
