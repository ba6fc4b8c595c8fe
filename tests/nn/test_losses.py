"""BPR, entropies, the loss over all items and fusion by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from mbgraph.nn import bpr, label_entropies, mean_fusion, mean_of_rows, non_sampling, weighted_fusion


@pytest.mark.parametrize("margin", [-3.0, 0.0, 0.5, 4.0])
def test_bpr_by_hand(margin):
    expected = -math.log(1 / (1 + math.exp(-margin)))
    assert bpr(torch.tensor([margin]), gamma=0).item() == pytest.approx(expected, rel=1e-5)
    assert bpr(torch.tensor([margin])).item() == pytest.approx(expected, rel=1e-5)


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
    assert_close(weighted_fusion(rows, torch.full((4, 3), 1 / 3)), mean_fusion(rows))
    weights = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [2, 0, -1]])
    expected = [rows[0][0], rows[1][1], rows[2][2], 2 * rows[0][3] - rows[2][3]]
    assert_close(weighted_fusion(rows, weights), torch.stack(expected))


def test_entropies_are_those_of_labels():
    generator = torch.Generator().manual_seed(1)
    positives, negatives = torch.randn(5, 2, generator=generator), torch.randn(5, 2, 3, generator=generator)
    made = label_entropies(positives, negatives)
    scores = torch.cat([positives.unsqueeze(2), negatives], 2)
    labels = torch.zeros(5, 2, 4)
    labels[..., 0] = 1
    assert_close(made, torch.nn.functional.binary_cross_entropy_with_logits(scores, labels, reduction="none"))


@pytest.mark.parametrize("unseen", [0.3, 0.0, 1.0])
def test_the_loss_over_all_items_is_a_weighted_squared_error(unseen):
    """Pair by pair: weight 1 and label 1 for pairs, the weight of unseen pairs and label 0 for all others."""
    generator = torch.Generator().manual_seed(2)
    shapes = ((4, 3), (5, 3), (3,))
    users, items, relation = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes
    )
    pairs = {(0, 1), (0, 4), (2, 0), (3, 4)}
    at, columns = (torch.tensor(side) for side in zip(*sorted(pairs), strict=True))
    made = non_sampling(users, items, relation, (at, columns), unseen)
    expected = torch.zeros((), dtype=torch.float64)
    for u in range(4):
        for i in range(5):
            score = (users[u] * items[i] * relation).sum()
            expected = expected + ((1 - score) ** 2 if (u, i) in pairs else unseen * score**2)
    assert_close(made + len(pairs), expected)
    parts = (users, items, relation)
    for one, two in zip(torch.autograd.grad(made, parts), torch.autograd.grad(expected, parts), strict=True):
        assert_close(one, two)
