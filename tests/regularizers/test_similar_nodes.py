"""Contrasts among all nodes without similar ones, against a dense computation."""

import pytest
import torch

from mbgraph.regularizers import infonce_among


@pytest.mark.parametrize("block", [2, 100])
@pytest.mark.parametrize("zero", [False, True])
def test_left_out_candidates_leave_the_denominator_or_count_one(block, zero):
    generator = torch.Generator().manual_seed(0)
    candidates = torch.randn(7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    anchor = torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(5, generator=generator, dtype=torch.float64)
    lists = torch.tensor([[5, 6], [-1, -1], [0, -1], [6, 1], [3, 2]])
    made = infonce_among(
        anchor, candidates[:5], candidates, temperature=0.3, left_out=lists, zero_left_out=zero, reduction="sum",
        weights=weights, block=block,
    )  # fmt: skip
    unit = torch.nn.functional.normalize
    similar = (unit(anchor) @ unit(candidates).T / 0.3).exp()
    expected = 0
    for n in range(5):
        out = set(lists[n].tolist())
        among = sum(similar[n, m] for m in range(7) if m not in out) + (len(out - {-1}) if zero else 0)
        expected = expected - weights[n] * (similar[n, n] / among).log()
    assert torch.allclose(made, expected)
    for one, two in zip(*(torch.autograd.grad(loss, (anchor, candidates)) for loss in (made, expected)), strict=True):
        assert torch.allclose(one, two)
