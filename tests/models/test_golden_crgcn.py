"""CRGCN against the arrays that the published code produced."""

import numpy as np
import pytest
import torch

import mbgraph as mb
from mbgraph.models import CRGCN, StepContext
from mbgraph.models.crgcn import _with_unit
from mbgraph.regularizers import L2
from mbgraph.testing import assert_matches, golden_dataset, golden_triples

GOLDEN = "crgcn"


def build(z, padding_zero=False, bias=True):
    ds = golden_dataset(z)
    layers = z["hp_layers"].tolist()
    model = CRGCN(ds.graph, ds.target, variant="official", gamma=float(z["hp_bpr_gamma"]), embedding_dim=int(z["dim"]),
                  layers=layers)  # fmt: skip
    with torch.no_grad():
        for side, table in zip(("user", "item"), model.tables, strict=True):
            padding = z[f"param_{side}_padding"] * (not padding_zero)
            table.copy_(torch.from_numpy(np.vstack([z[f"param_{side}_embedding"], padding])))
        for name, count, rows in zip(ds.behaviors, layers, model.biases, strict=True):
            if bias:
                rows.copy_(torch.from_numpy(np.stack([z[f"param_bias_{name}_{k}"] for k in range(count)])))
    return ds, model


@pytest.mark.parametrize("bias", [True, False])
def test_embeddings_scores_and_metrics(arrays, bias):
    ds, model = build(arrays, bias=bias)
    after, before = ("", "") if bias else ("_bias0", "bias0_")
    encoded = model.encode()
    assert tuple(encoded.behaviors) == ds.behaviors
    for name, (users, items) in encoded.behaviors.items():
        assert_matches(users, arrays[f"user_emb_{name}{after}"])
        assert_matches(items, arrays[f"item_emb_{name}{after}"])
    scorer = model.scorer()
    assert_matches(scorer.scores(torch.arange(ds.num_users)), arrays[f"score_matrix{after}"])
    metrics = mb.evaluate(model, ds, k=(5, 10)).metrics
    made = [metrics[name] for name in ("HR@5", "HR@10", "NDCG@5", "NDCG@10")]
    assert made == pytest.approx(arrays[f"{before}metric_values"].tolist(), abs=1e-12)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("pad", {}),
        ("nopad", {}),
        ("pad_padzero", {"padding_zero": True}),
        ("pad_bias0", {"bias": False}),
        ("nopad_bias0", {"bias": False}),
        ("pad_bias0_padzero", {"bias": False, "padding_zero": True}),
    ],
)
def test_terms_and_gradients(arrays, suffix, options):
    ds, model = build(arrays, **options)
    outputs = model.step(golden_triples(arrays, suffix.partition("_")[0]), StepContext())
    (norm,) = model.options.regularizers()
    assert isinstance(norm, L2)
    size = norm(outputs)
    assert tuple(outputs.losses) == ds.behaviors
    assert_matches(torch.stack(list(outputs.losses.values())), arrays[f"loss_bpr_per_behavior__{suffix}"])
    assert_matches(size, arrays[f"loss_emb_unweighted__{suffix}"])
    total = sum(outputs.losses.values()) + float(arrays["hp_reg_weight"]) * size
    assert_matches(total, arrays[f"loss_total__{suffix}"])
    total.backward()
    for side, table in zip(("user", "item"), model.tables, strict=True):
        assert_matches(table.grad[:-1], arrays[f"grad_{side}__total__{suffix}"])
    if "bias" in options:
        return
    for name, rows in zip(ds.behaviors, model.biases, strict=True):
        for layer, gradient in enumerate(rows.grad):
            assert_matches(gradient, arrays[f"grad_bias_{name}_{layer}__{suffix}"])


def test_users_who_lack_a_behavior_leave_its_loss_by_default(arrays):
    ds, official = build(arrays)
    ours = CRGCN(ds.graph, ds.target, embedding_dim=int(arrays["dim"]), layers=list(official.layers.values()))
    batch = golden_triples(arrays, "pad")
    made = ours.step(batch, StepContext())
    for name in ds.behaviors:
        present = int((batch.positives[name] >= 0).sum())
        assert len(made.triples[name][0]) == present < len(batch)


def test_the_derivative_by_hand_of_a_residual_is_that_of_the_formula():
    """The unit row is added; rows shorter than 1e-12 are divided by that number, which has no derivative."""
    generator = torch.Generator().manual_seed(0)
    rows, other, weights = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    other[1], other[2] = 0.0, other[2] * 1e-14
    leaves = [rows.requires_grad_(), other.requires_grad_()]
    made = _with_unit(*leaves)
    plain = rows + torch.nn.functional.normalize(other, dim=1)
    torch.testing.assert_close(made, plain, rtol=1e-14, atol=1e-15)
    found, expected = (torch.autograd.grad((value * weights).sum(), leaves) for value in (made, plain))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    ordinary = [torch.randn(3, 2, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(_with_unit, ordinary)
    assert torch.autograd.gradgradcheck(_with_unit, ordinary)
