"""InfoNCE against a double loop over pairs, in all its forms; its hand-written derivative; what it reads of a step."""

import math

import pytest
import torch
from torch.testing import assert_close

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.regularizers import InfoNCE, StepOutputs, infonce, infonce_among, nt_xent
from mbgraph.testing.regularizers import toy_leaves, toy_step


def rows(*shape, seed=0, **options):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, **options)


def cosine(x, y):
    return ((x @ y) / (x.norm() * y.norm())).item()


def loop_infonce(anchor, other, tau, direction, negatives, include_positive, reduction, weights=None):
    """The definition, one pair at a time, in plain Python."""
    n = len(anchor)

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
    weights = [1.0] * n if weights is None else weights.tolist()
    total = sum(w * value for w, value in zip(weights, chosen, strict=True))
    return total / (sum(weights) if reduction == "mean" else 1)


WEIGHTS = torch.tensor([1.0, 0.0, 0.5, 2.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
@pytest.mark.parametrize("direction", ["both", "anchor", "other"])
@pytest.mark.parametrize("negatives", ["cross", "intra"])
@pytest.mark.parametrize("include_positive", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_it_equals_the_double_loop(direction, negatives, include_positive, reduction, weights):
    anchor, other = rows(5, 3), rows(5, 3, seed=1)
    options = {
        "direction": direction,
        "negatives": negatives,
        "include_positive": include_positive,
        "reduction": reduction,
        "weights": weights,
    }
    made = infonce(anchor, other, temperature=0.3, **options)
    assert made.item() == pytest.approx(loop_infonce(anchor, other, 0.3, *options.values()), rel=1e-9)


def test_the_hand_written_derivative_equals_autograd():
    """The short cut for the published form: value, gradient, and the derivative of the gradient."""
    a, o = (rows(5, 4, seed=seed, requires_grad=True) for seed in (3, 4))

    def short(a, o):
        return infonce(a, o, temperature=0.3, reduction="sum", weights=WEIGHTS)

    def long(a, o):
        return (
            infonce(a, o, temperature=0.3, direction="anchor", reduction="sum", weights=WEIGHTS)
            + infonce(a, o, temperature=0.3, direction="other", reduction="sum", weights=WEIGHTS)
        ) / 2

    assert_close(short(a, o), long(a, o))
    for mine, reference in zip(
        torch.autograd.grad(short(a, o), (a, o)), torch.autograd.grad(long(a, o), (a, o)), strict=True
    ):
        assert_close(mine, reference)
    assert torch.autograd.gradcheck(short, (a, o))
    assert torch.autograd.gradgradcheck(short, (a, o))


def test_it_stays_finite_where_the_short_cut_would_not():
    a = torch.eye(3)
    assert_close(infonce(a, -a, temperature=0.001), torch.tensor(1000 + math.log(2.0)), rtol=1e-6, atol=0.0)
    assert_close(infonce(a, -a, temperature=0.026), torch.tensor(1 / 0.026 + math.log(2.0)), rtol=1e-5, atol=0.0)


def test_by_hand():
    # two orthogonal users, aligned with themselves: -log(e^{1/t} / (e^{1/t} + 1)), here t = 1
    eye = torch.eye(2)
    assert infonce(eye, eye, temperature=1.0).item() == pytest.approx(-math.log(math.e / (math.e + 1)), rel=1e-6)


def test_both_is_symmetric_and_scale_free():
    anchor, other = rows(7, 4), rows(7, 4, seed=1)
    assert_close(infonce(anchor, other), infonce(other, anchor))
    assert_close(infonce(3 * anchor, 0.1 * other), infonce(anchor, other))


def test_without_the_positive_it_is_unbounded_below():
    """The printed Eq. 3 can fall without limit as the temperature's scale grows; the usual form cannot go below 0."""
    eye = torch.eye(3)
    printed = infonce(eye, eye, temperature=0.01, negatives="intra", include_positive=False)
    assert printed.item() < -90
    assert infonce(eye, eye, temperature=0.01).item() >= 0


def test_nobody_to_contrast_with_is_zero():
    assert infonce(torch.randn(1, 3), torch.randn(1, 3), include_positive=False).item() == 0
    for options in ({}, {"direction": "anchor"}, {"negatives": "intra"}, {"reduction": "sum"}):
        nobody = torch.empty(0, 3, requires_grad=True)
        value = infonce(nobody, nobody, **options)
        assert value.item() == 0
        value.backward()
    everyone_at_zero = infonce(rows(3, 2), rows(3, 2), weights=torch.zeros(3, dtype=torch.float64))
    assert everyone_at_zero.item() == 0


# --- in blocks of the batch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
@pytest.mark.parametrize("negatives", ["cross", "intra"])
@pytest.mark.parametrize("block", [2, 3, 4])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_block_is_contrasted_with_itself_alone(block, negatives, reduction, weights):
    """The double loop, block by block: rows 0, n, 2n, .. of n blocks are one."""
    anchor, other = rows(5, 3), rows(5, 3, seed=1)
    count = math.ceil(5 / block)
    total, counted = 0.0, 0.0
    for start in range(count):
        own = slice(start, None, count)
        part = None if weights is None else weights[own]
        options = (0.3, "both", negatives, True, "sum", part)
        total += loop_infonce(anchor[own], other[own], *options)
        counted += len(anchor[own]) if part is None else part.sum().item()
    made = infonce(
        anchor, other, temperature=0.3, negatives=negatives, reduction=reduction, weights=weights, block=block
    )
    assert made.item() == pytest.approx(total / (counted if reduction == "mean" else 1), rel=1e-9)


def test_blocks_have_derivatives_of_any_order():
    leaves = [rows(5, 3, seed=seed, requires_grad=True) for seed in (3, 4)]

    def run(a, o):
        return infonce(a, o, temperature=0.3, weights=WEIGHTS, block=2)

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


def test_one_block_is_the_whole_batch_and_a_lonely_row_contributes_nothing():
    anchor, other = rows(5, 3), rows(5, 3, seed=1)
    assert_close(infonce(anchor, other, block=5), infonce(anchor, other))
    lonely = infonce(anchor[:3], other[:3], temperature=0.3, negatives="intra", include_positive=False, block=2)
    pair = slice(0, None, 2)
    whole = infonce(anchor[:3][pair], other[:3][pair], temperature=0.3, negatives="intra", include_positive=False)
    assert_close(lonely, whole * 2 / 3)


def test_memory_of_blocks_does_not_grow_with_the_square_of_the_batch():
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    anchor, other = (rows(128, 4, seed=seed, requires_grad=True) for seed in (1, 2))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        infonce(anchor, other, block=16)
    assert max(kept) <= 128 * 4


# --- among all nodes ------------------------------------------------------------------------------------------------

LEFT_OUT = [[1, 5], [], [0], [2, 3, 4], [6]]


def as_lists(lists):
    """Return lists of numbers as one tensor, filled up with -1."""
    return torch.tensor([own + [-1] * (max(map(len, lists)) - len(own)) for own in lists])


def loop_among(anchor, positive, candidates, tau, left_out, zero_left_out, reduction, weights):
    values = []
    for n in range(len(anchor)):
        total = 0.0
        for m in range(len(candidates)):
            if left_out is None or m not in left_out[n]:
                total += math.exp(cosine(anchor[n], candidates[m]) / tau)
            elif zero_left_out:
                total += 1.0
        values.append(-math.log(math.exp(cosine(anchor[n], positive[n]) / tau) / total))
    weights = [1.0] * len(values) if weights is None else weights.tolist()
    total = sum(w * value for w, value in zip(weights, values, strict=True))
    return total / (sum(weights) if reduction == "mean" else 1)


@pytest.mark.parametrize("block", [1, 2, 3, 1024])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("left_out", "zero"), [(None, False), (LEFT_OUT, False), (LEFT_OUT, True)], ids=["all", "left out", "zero"]
)
def test_among_equals_the_double_loop(left_out, zero, reduction, weights, block):
    anchor, positive, candidates = rows(5, 3), rows(5, 3, seed=1), rows(7, 3, seed=2)
    lists = None if left_out is None else as_lists(left_out)
    made = infonce_among(anchor, positive, candidates, temperature=0.4, left_out=lists, zero_left_out=zero,
                         reduction=reduction, weights=weights, block=block)  # fmt: skip
    expected = loop_among(anchor, positive, candidates, 0.4, left_out, zero, reduction, weights)
    assert made.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("block", [2, 1024])
@pytest.mark.parametrize("zero", [False, True])
def test_among_has_the_gradients_of_its_blocks(zero, block):
    leaves = [rows(5, 3, requires_grad=True), rows(5, 3, seed=1, requires_grad=True), rows(7, 3, seed=2)]
    leaves[2].requires_grad_()

    def run(*given):
        return infonce_among(*given, temperature=0.4, left_out=as_lists(LEFT_OUT), zero_left_out=zero, block=block)

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


@pytest.mark.parametrize("block", [2, 1024])
def test_the_own_positive_may_join_candidates_that_do_not_hold_it(block):
    """As if each row had its positive as one candidate more."""
    leaves = [rows(count, 4, seed=seed, requires_grad=True) for seed, count in enumerate((5, 5, 7))]

    def run(*given):
        return infonce_among(*given, temperature=0.3, include_positive=True, block=block)

    anchor, positive, candidates = leaves
    expected = [
        infonce_among(anchor[[n]], positive[[n]], torch.cat([candidates, positive[[n]]]), temperature=0.3).item()
        for n in range(5)
    ]
    assert run(*leaves).item() == pytest.approx(sum(expected) / 5, rel=1e-9)
    assert torch.autograd.gradcheck(run, leaves)


def test_among_forgets_its_blocks(monkeypatch):
    """What a backward pass keeps does not grow with rows x candidates: blocks are computed again."""
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    anchor, candidates = rows(64, 4, requires_grad=True), rows(500, 4, seed=1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        infonce_among(anchor, anchor, candidates, block=16)
    assert max(kept) < 16 * 500


def test_two_views_equal_the_double_loop():
    one, two = rows(5, 3), rows(5, 3) + 1
    both = [*one, *two]
    terms = []
    for n, row in enumerate(both):
        similar = [torch.cosine_similarity(row, other, dim=0) / 0.4 for other in both]
        others = torch.stack([value for m, value in enumerate(similar) if m != n])
        terms.append(torch.logsumexp(others, 0) - similar[(n + 5) % 10])
    assert_close(nt_xent(one, two, temperature=0.4), torch.stack(terms).mean())


def test_among_nobody_is_zero():
    value = infonce_among(torch.empty(0, 3, requires_grad=True), torch.empty(0, 3), rows(4, 3).float())
    assert value.item() == 0
    value.backward()


# --- the regularizer ------------------------------------------------------------------------------------------------


@pytest.fixture
def step():
    return toy_step(toy_leaves())


@pytest.mark.parametrize("side", ["user", "item"])
def test_it_sums_or_averages_over_auxiliary_behaviors(step, side):
    anchors = step.anchors[side]
    parts = torch.stack([infonce(anchors["buy"], anchors[name]) for name in ("view", "cart")])
    assert_close(InfoNCE(side=side)(step), parts.sum())
    assert_close(InfoNCE(side=side, reduce_behaviors="mean")(step), parts.mean())


def test_every_option_reaches_the_function(step):
    anchors = step.anchors["user"]
    options = {
        "temperature": 0.4,
        "direction": "other",
        "negatives": "intra",
        "include_positive": False,
        "reduction": "sum",
    }
    expected = sum(infonce(anchors["buy"], anchors[name], **options) for name in ("view", "cart"))
    assert_close(InfoNCE(**options)(step), expected)
    one, two = step.views["user"]
    assert_close(InfoNCE(between="views", **options)(step), infonce(one, two, **options))


def test_a_temperature_for_every_auxiliary_behavior(step):
    anchors = step.anchors["user"]
    expected = infonce(anchors["buy"], anchors["view"], temperature=0.2)
    expected = expected + infonce(anchors["buy"], anchors["cart"], temperature=0.5)
    assert_close(InfoNCE(temperatures=(0.2, 0.5), temperature=9.0)(step), expected)
    assert_close(InfoNCE(temperatures=(0.2,), temperature=0.5)(step), expected)
    with pytest.raises(UsageError, match="has 3 numbers for 2 auxiliary behaviors; give at most one for each of view"):
        InfoNCE(temperatures=(0.2, 0.5, 0.1))(step)


@pytest.mark.parametrize("side", ["user", "item"])
def test_between_views(step, side):
    one, two = step.views[side]
    assert_close(InfoNCE(between="views", side=side)(step), infonce(one, two))


def test_supported_only_leaves_nodes_out_and_weighted_counts_them(step):
    anchors, weights = step.anchors["user"], step.anchor_weights["user"]["view"]
    chosen = weights > 0
    buy, view, cart = (anchors[name] for name in ("buy", "view", "cart"))
    other = infonce(buy, cart)  # the model says nothing about carts: all count alike
    assert int((~chosen).sum()) > 0
    for options, expected in (
        ({}, infonce(buy, view)),
        ({"supported_only": True}, infonce(buy[chosen], view[chosen])),
        ({"weighted": True}, infonce(buy, view, weights=weights)),
        ({"supported_only": True, "weighted": True}, infonce(buy[chosen], view[chosen], weights=weights[chosen])),
    ):
        assert_close(InfoNCE(**options)(step), expected + other)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("supported_only", [False, True])
@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_all_nodes_as_candidates_without_the_similar_ones(step, reduction, side, supported_only, zero):
    anchors, nodes = step.anchors[side], step.nodes[side]
    lists = [[number for number in own if number >= 0] for own in step.similar[side].tolist()]
    assert any(lists)
    total = 0.0
    for name in ("view", "cart"):
        weights = step.anchor_weights.get(side, {}).get(name)
        keep = range(len(lists)) if weights is None or not supported_only else (weights > 0).nonzero()[:, 0].tolist()
        keep = list(keep)
        chosen = anchors["buy"][keep], anchors[name][keep]
        total += loop_among(*chosen, nodes[name], 0.5, [lists[n] for n in keep], zero, reduction, None)
    made = InfoNCE(
        candidates="all",
        side=side,
        supported_only=supported_only,
        zero_similar=zero,
        temperature=0.5,
        reduction=reduction,
        block=2,
    )
    assert made(step).item() == pytest.approx(total, rel=1e-9)


def test_blocks_of_the_batch_are_an_option_of_the_term(step):
    anchors = step.anchors["user"]
    expected = sum(infonce(anchors["buy"], anchors[name], block=2) for name in ("view", "cart"))
    assert_close(InfoNCE(candidates="block", block=2)(step), expected)
    assert InfoNCE(weight=0.3).in_blocks(7) == InfoNCE(weight=0.3, candidates="block", block=7)
    for other in (InfoNCE(candidates="all"), InfoNCE(candidates="block", block=3)):
        assert other.in_blocks(7) == other


def test_all_nodes_of_a_model_that_calls_none_similar():
    step = toy_step(toy_leaves(), similar=None)
    anchors, nodes = step.anchors["user"], step.nodes["user"]
    expected = sum(infonce_among(anchors["buy"], anchors[name], nodes[name]) for name in ("view", "cart"))
    assert_close(InfoNCE(candidates="all")(step), expected)


def test_only_what_is_needed_is_made():
    """A contrast of users in the batch asks for no node outside it."""

    def forbidden():
        raise AssertionError("nobody needs this")

    step = toy_step(toy_leaves(), nodes=forbidden, similar=forbidden, views=forbidden, triples=forbidden)
    InfoNCE()(step)
    with pytest.raises(AssertionError, match="nobody needs this"):
        InfoNCE(candidates="all")(step)


def test_errors_name_the_remedy(step):
    with pytest.raises(UnknownNameError, match="unknown direction 'boht'; did you mean 'both'"):
        infonce(rows(2, 2), rows(2, 2), direction="boht")
    with pytest.raises(UnknownNameError, match="unknown kind of negatives 'across'"):
        infonce(rows(2, 2), rows(2, 2), negatives="across")
    for function, count in ((infonce, 2), (infonce_among, 3)):
        with pytest.raises(UsageError, match="temperature must be positive, got 0"):
            function(*[rows(2, 2)] * count, temperature=0)
    with pytest.raises(UsageError, match="block must be positive, got 0"):
        infonce(rows(2, 2), rows(2, 2), block=0)
    with pytest.raises(UsageError, match="block must be positive, got 0"):
        infonce_among(*[rows(2, 2)] * 3, block=0)
    with pytest.raises(UnknownNameError, match="direction of regularizer 'infonce' 'boht'; did you mean 'both'"):
        InfoNCE(direction="boht")
    with pytest.raises(UsageError, match="temperature of regularizer 'infonce' must be a number above 0.*, got 0"):
        InfoNCE(temperature=0)
    for options in ({"negatives": "intra"}, {"include_positive": False}):
        with pytest.raises(UsageError, match="among all nodes knows only cross negatives with the positive among them"):
            InfoNCE(candidates="all", **options)
    alone = StepOutputs("buy", anchors={"user": {"buy": rows(2, 2)}})
    with pytest.raises(UsageError, match="infonce between behaviors needs a model that encodes an auxiliary behavior"):
        InfoNCE()(alone)
    with pytest.raises(
        UsageError, match="infonce needs anchors of items, which this model does not give; choose side=user"
    ):
        InfoNCE(side="item")(alone)
    with pytest.raises(UsageError, match="infonce needs 'views', which this model does not give"):
        InfoNCE(between="views")(alone)
    with pytest.raises(UsageError, match="infonce needs 'nodes', which this model does not give"):
        InfoNCE(candidates="all")(toy_step(toy_leaves(), nodes=None))
