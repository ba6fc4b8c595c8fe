"""The derivatives by hand of contrasts' denominators against what autograd records, in all cases and at the edges."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from mbgraph.regularizers import denominators, infonce, infonce_among
from mbgraph.regularizers.denominators import sum_of_logs, two_way, unit

LEFT_OUT = torch.tensor([[1, 5, -1], [-1, -1, -1], [0, -1, -1], [4, 3, 2], [6, 6, -1]])
WEIGHTS = torch.tensor([1.0, 0.0, 0.5, 2.0, 1.0], dtype=torch.float64)


def rows(*shape, seed=0, **options):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, **options)


def plain_among(anchor, positive, candidates, temperature, left_out, zero, include_positive, weights):
    """The formula with a mask of rows x candidates, by operations of torch."""
    normalize = torch.nn.functional.normalize
    a, p, c = normalize(anchor, dim=1), normalize(positive, dim=1), normalize(candidates, dim=1)
    similarity = a @ c.T / temperature
    if left_out is not None:
        mask = torch.zeros(similarity.shape, dtype=torch.bool)
        for n, own in enumerate(left_out.tolist()):
            mask[n, [m for m in own if m >= 0]] = True
        similarity = similarity.masked_fill(mask, 0.0 if zero else float("-inf"))
    own = (a * p).sum(1) / temperature
    if include_positive:
        similarity = torch.cat([similarity, own.unsqueeze(1)], 1)
    return ((torch.logsumexp(similarity, 1) - own) * weights).sum() / weights.sum()


@pytest.mark.parametrize("block", [1, 2, 1024])
@pytest.mark.parametrize("include_positive", [False, True])
@pytest.mark.parametrize(
    ("left_out", "zero"), [(None, False), (LEFT_OUT, False), (LEFT_OUT, True)], ids=["all", "left out", "zero"]
)
@pytest.mark.parametrize("temperature", [0.4, 0.024])
def test_values_and_gradients_are_those_of_the_formula(temperature, left_out, zero, include_positive, block):
    """Weights have one too. Below a temperature of 0.025 the largest exponential is divided out first."""
    leaves = [rows(count, 3, seed=seed, requires_grad=True) for seed, count in enumerate((5, 5, 7))]
    leaves.append(WEIGHTS.clone().requires_grad_())
    made = infonce_among(
        *leaves[:3], temperature=temperature, left_out=left_out, zero_left_out=zero,
        include_positive=include_positive, weights=leaves[3], block=block,
    )  # fmt: skip
    plain = plain_among(*leaves[:3], temperature, left_out, zero, include_positive, leaves[3])
    assert_close(made, plain, rtol=1e-10, atol=0.0)
    for mine, theirs in zip(torch.autograd.grad(made, leaves), torch.autograd.grad(plain, leaves), strict=True):
        assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("include_positive", [False, True])
@pytest.mark.parametrize("zero", [False, True])
def test_the_derivative_of_the_derivative_is_that_of_the_formula(zero, include_positive):
    leaves = [rows(count, 3, seed=seed, requires_grad=True) for seed, count in enumerate((5, 5, 7))]
    leaves.append(WEIGHTS.clone().requires_grad_())

    def run(anchor, positive, candidates, weights):
        return infonce_among(anchor, positive, candidates, temperature=0.4, left_out=LEFT_OUT, zero_left_out=zero,
                             include_positive=include_positive, weights=weights, block=2)  # fmt: skip

    def curvature(value):
        first = torch.autograd.grad(value, leaves, create_graph=True)
        return torch.autograd.grad(sum((part * part).sum() for part in first), leaves)

    assert torch.autograd.gradgradcheck(run, leaves)
    plain = plain_among(*leaves[:3], 0.4, LEFT_OUT, zero, include_positive, leaves[3])
    for mine, theirs in zip(curvature(run(*leaves)), curvature(plain), strict=True):
        assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("other", [lambda a: a, lambda a: (a * a).cumsum(1)], ids=["itself", "made of it"])
def test_rows_may_be_contrasted_with_what_was_made_of_them(other):
    """Each derivative, the first recorded one too, goes through either side once."""
    a = rows(5, 3, seed=0)
    a.requires_grad_()

    def plain(a, o):
        similarity = a @ o.T / 0.4
        logs = (torch.logsumexp(similarity, 0) + torch.logsumexp(similarity, 1)) / 2
        return logs - similarity.diagonal()

    found = []
    for run in (lambda a, o: two_way(a, o, 0.4), plain):
        (unrecorded,) = torch.autograd.grad(run(a, other(a)).square().sum(), a)
        (first,) = torch.autograd.grad(run(a, other(a)).square().sum(), a, create_graph=True)
        found.append((unrecorded, first, *torch.autograd.grad(first.square().sum(), a)))
    for mine, theirs in zip(*found, strict=True):
        assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


def test_a_side_may_be_a_constant_in_either_derivative():
    a, o = rows(5, 3, seed=0, requires_grad=True), rows(5, 3, seed=1)
    assert torch.autograd.gradgradcheck(lambda a: two_way(a, o, 0.4), (a,))
    assert torch.autograd.gradgradcheck(lambda a: two_way(o, a, 0.4), (a,))


def test_a_graph_that_is_kept_is_derived_twice_alike():
    a, o = (rows(5, 3, seed=seed).requires_grad_() for seed in (0, 1))
    value = two_way(a, o, 0.4).square().sum()
    one, two = (torch.autograd.grad(value, (a, o), retain_graph=True) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(one, two, strict=True))


@pytest.mark.parametrize("include_positive", [False, True])
@pytest.mark.parametrize("left_out", [None, LEFT_OUT], ids=["all", "left out"])
@pytest.mark.parametrize("temperature", [1e-6, 0.001, 0.0249, 0.0251])
def test_no_temperature_is_too_cold_for_single_precision(temperature, left_out, include_positive):
    """At 0.001 ``exp`` of every cosine over the temperature is 0 or infinite in float32."""
    cosines = torch.linspace(-1, 0.6, 5, dtype=torch.float64)
    anchor = torch.stack([cosines, (1 - cosines**2).sqrt()], 1).float()
    positive, candidates = torch.eye(2)[[0] * 5].float(), torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, -1.0]] * 3)[:7]
    made, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        leaves = [table.to(dtype).requires_grad_() for table in (anchor, positive, candidates)]
        if dtype == torch.float32:
            value = infonce_among(*leaves, temperature=temperature, left_out=left_out, reduction="sum",
                                  include_positive=include_positive)  # fmt: skip
        else:
            value = 5 * plain_among(*leaves, temperature, left_out, False, include_positive, torch.ones(5).double())
        made.append(value.detach().double())
        gradients.append([part.double() * temperature for part in torch.autograd.grad(value, leaves)])
    assert math.isfinite(made[0])
    assert_close(made[0], made[1], rtol=1e-5, atol=0.05 if temperature < 1e-5 else 1e-4)
    for mine, theirs in zip(*gradients, strict=True):
        assert_close(mine, theirs, rtol=2e-4, atol=2e-4)


def test_all_that_is_left_out_leaves_the_positive_or_nothing():
    leaves = [rows(count, 3, seed=seed, requires_grad=True) for seed, count in enumerate((2, 2, 2))]
    everything = torch.tensor([[0, 1], [1, -1]])
    for temperature in (0.4, 0.01):
        run = partial(infonce_among, *leaves, temperature=temperature, left_out=everything, reduction="sum")
        assert run().item() == math.inf * -1
        assert all(bool(part.isfinite().all()) for part in torch.autograd.grad(run(), leaves))
        # with its positive the first row has one summand, the positive itself, and loses nothing
        alone = infonce_among(*(leaf[1:] for leaf in leaves[:2]), leaves[2], temperature=temperature,
                              left_out=everything[1:], include_positive=True)  # fmt: skip
        assert run(include_positive=True).item() == pytest.approx(alone.item(), rel=1e-12)
        # counted as a cosine of 0 they add 1 each, and say nothing about themselves
        value = run(zero_left_out=True, left_out=torch.tensor([[0, 1], [0, 1]]))
        own = torch.nn.functional.cosine_similarity(*leaves[:2]).sum() / temperature
        assert value.item() == pytest.approx(2 * math.log(2) - own.item(), rel=1e-9)
        assert not torch.autograd.grad(value, leaves[2])[0].any()


def test_one_candidate_is_no_choice():
    anchor, positive = rows(3, 4), rows(1, 4, seed=1)
    made = infonce_among(anchor, positive.expand(3, 4), positive, temperature=0.3)
    assert made.item() == pytest.approx(0.0, abs=1e-12)
    nothing_left_out = torch.empty(3, 0, dtype=torch.int64)
    assert_close(
        infonce_among(anchor, anchor, positive, left_out=nothing_left_out), infonce_among(anchor, anchor, positive)
    )


def test_no_candidate_leaves_the_positive():
    for temperature in (0.3, 0.01):
        made = infonce_among(rows(3, 4), rows(3, 4, seed=1), rows(0, 4), temperature=temperature, include_positive=True)
        assert made.item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_of_two_bytes_are_summed_in_four(dtype):
    """Thousands of summands in 8 digits would stop to grow."""
    anchor, candidates = rows(4, 8).to(dtype).requires_grad_(), rows(3000, 8, seed=1).to(dtype)
    made = infonce_among(anchor, anchor.detach(), candidates, temperature=0.1, include_positive=True)
    made.backward()
    exact = anchor.detach().double().requires_grad_()
    expected = infonce_among(exact, exact.detach(), candidates.double(), temperature=0.1, include_positive=True)
    expected.backward()
    assert made.dtype == anchor.grad.dtype == dtype
    assert_close(made.double(), expected, rtol=0.02, atol=0.0)
    assert_close(anchor.grad.double(), exact.grad, rtol=0.1, atol=0.1)


def test_only_what_is_asked_for_is_derived(monkeypatch):
    """Without a gradient no product of the derivative is computed; with one, only those of the leaves."""
    products = []
    whole = torch.mm
    monkeypatch.setattr(torch, "mm", lambda *given, **options: products.append(1) or whole(*given, **options))
    anchor, candidates = rows(4, 3), rows(5, 3, seed=1)
    infonce_among(anchor, anchor, candidates)
    assert len(products) == 1
    leaf = candidates.clone().requires_grad_()
    assert torch.autograd.grad(infonce_among(anchor, anchor, leaf), leaf)[0].any()
    assert len(products) == 2  # the other product of a derivative is added to what stands there


def test_blocks_fit_the_cache_of_a_cpu(monkeypatch):
    monkeypatch.setattr(denominators, "_CACHED", 100)
    anchor, candidates = rows(70, 3, requires_grad=True), rows(5, 3, seed=1)
    small = torch.autograd.grad(infonce_among(anchor, anchor, candidates), anchor)[0]
    monkeypatch.undo()
    assert_close(small, torch.autograd.grad(infonce_among(anchor, anchor, candidates), anchor)[0])


@pytest.mark.parametrize("direction", ["anchor", "other"])
@pytest.mark.parametrize("temperature", [0.3, 0.01])
def test_one_direction_of_the_batch_is_a_contrast_among_the_other_side(direction, temperature):
    one, two = (rows(5, 3, seed=seed, requires_grad=True) for seed in (1, 2))
    made = infonce(one, two, direction=direction, temperature=temperature, weights=WEIGHTS)
    first, second = (one, two) if direction == "anchor" else (two, one)
    expected = plain_among(first, second, second, temperature, None, False, False, WEIGHTS)
    assert_close(made, expected, rtol=1e-10, atol=0.0)
    for pair in zip(*(torch.autograd.grad(value, (one, two)) for value in (made, expected)), strict=True):
        assert_close(*pair, rtol=1e-8, atol=1e-9)


def test_a_sum_of_logs_counts_what_it_is_given():
    made = sum_of_logs(torch.eye(2), torch.eye(2)[:1], torch.tensor([1.0, 2.0]), None, temperature=0.5)
    assert made.item() == pytest.approx(math.log(math.e**2 + math.e) + math.log(1 + math.e**2), rel=1e-6)


# --- rows of length 1 -----------------------------------------------------------------------------------------------


def test_unit_rows_and_their_derivatives_are_those_of_normalize():
    table = rows(4, 3)
    table[1], table[2] = 0.0, table[2] * 1e-14  # no direction, and shorter than what counts
    table.requires_grad_()
    weights = rows(4, 3, seed=1)
    plain = torch.nn.functional.normalize(table, dim=1)
    assert_close(unit(table), plain, rtol=1e-15, atol=0.0)
    found, expected = (torch.autograd.grad((value * weights).sum(), table)[0] for value in (unit(table), plain))
    assert_close(found, expected, rtol=1e-12, atol=1e-12)
    ordinary = rows(4, 3, requires_grad=True)
    assert torch.autograd.gradcheck(unit, ordinary)
    assert torch.autograd.gradgradcheck(unit, ordinary)
