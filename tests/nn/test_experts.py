"""Gated experts one by one, and projections by their geometry."""

import pytest
import torch
from torch.testing import assert_close

from mbgraph.nn import Experts, triple_margin
from mbgraph.nn import experts as module
from mbgraph.nn.projection import along, projected, rejected


def tables(generator, width=3):
    return torch.randn(4, width, generator=generator), torch.randn(5, width, generator=generator)


def gated():
    generator = torch.Generator().manual_seed(4)
    own, *others = (tables(generator) for _ in range(3))
    weight, bias = torch.randn(6, 3, generator=generator), torch.randn(3, generator=generator)
    expected = torch.zeros(4, 5)
    for u in range(4):
        for i in range(5):
            gate = torch.softmax(torch.cat([own[0][u], own[1][i]]) @ weight + bias, 0)
            parts = [0.5 * projected(o[0][u : u + 1], own[0][u : u + 1])[0] for o in others]
            of_items = [0.5 * projected(o[1][i : i + 1], own[1][i : i + 1])[0] for o in others]
            scores = [own[0][u] @ own[1][i], *(one @ two for one, two in zip(parts, of_items, strict=True))]
            expected[u, i] = 7 * sum(g * score for g, score in zip(gate, scores, strict=True))
    return Experts.of(own, others, weight, bias, share=0.5, scale=7.0), expected


@pytest.mark.parametrize("most", [2**24, 11])
def test_scores_are_the_gated_sum_of_the_experts(monkeypatch, most):
    monkeypatch.setattr(module, "_SCORES", most)  # one block, and blocks of two users
    experts, expected = gated()
    users = torch.tensor([3, 0, 1, 2, 3])
    assert_close(experts.scores(users), expected[users])
    assert experts.scores(users[:0]).shape == (0, 5)


@pytest.mark.parametrize("negatives", [[0, 4, 1], [[0, 1], [4, 4], [1, 2]]])
def test_margins_are_differences_of_scores(negatives):
    experts, expected = gated()
    users, positives, negatives = torch.tensor([2, 2, 0]), torch.tensor([4, 3, 3]), torch.tensor(negatives)
    ahead = expected[users, positives]
    made = experts.margin(users, positives, negatives)
    assert made.shape == negatives.shape
    for column in range(negatives[0].numel()):
        behind = expected[users, negatives.reshape(3, -1)[:, column]]
        assert_close(made.reshape(3, -1)[:, column], ahead - behind)


def test_an_expert_alone_is_the_product():
    own = tables(torch.Generator().manual_seed(1))
    experts = Experts.of(own, [], torch.zeros(6, 1), torch.zeros(1), share=0.5)
    numbers = torch.tensor([0, 3]), torch.tensor([1, 1]), torch.tensor([4, 2])
    rows = own[0][numbers[0]], own[1][numbers[1]], own[1][numbers[2]]
    assert_close(experts.margin(*numbers), triple_margin(*rows))
    assert_close(experts.scores(torch.arange(4)), own[0] @ own[1].T)


def test_a_projection_and_what_it_leaves():
    rows, other = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    assert along(rows, other).tolist() == [[1.5], [0.0]]  # nothing points along nothing
    assert projected(rows, other, 0.5).tolist() == [[1.5, 0.0], [0.0, 0.0]]
    assert rejected(rows, other).tolist() == [[0.0, 4.0], [1.0, 1.0]]
