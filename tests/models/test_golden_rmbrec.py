"""RMBRec against the arrays that the published code produced."""

import numpy as np
import pytest
import torch

import mbgraph as mb
from mbgraph.models import RMBRec, StepContext
from mbgraph.nn import propagate
from mbgraph.regularizers import L2, InfoNCE, IRMv1, IRMv2, REx, triple_norm
from mbgraph.testing import assert_matches, golden_dataset, golden_triples

GOLDEN = "rmbrec"
PENALTIES = {"rex": REx(), "v1": IRMv1(scale_on="loss"), "v2": IRMv2(of="parameters")}


def build(z, padding_zero=False, backend="auto"):
    ds = golden_dataset(z)
    model = RMBRec(ds.graph, ds.target, variant="official", gamma=float(z["hp_bpr_gamma"]), embedding_dim=int(z["dim"]),
                   num_layers=int(z["hp_layers"]), backend=backend)  # fmt: skip
    with torch.no_grad():
        for side, table in zip(("user", "item"), model.tables, strict=True):
            padding = z[f"param_{side}_padding"] * (not padding_zero)
            table.copy_(torch.from_numpy(np.vstack([z[f"param_{side}_embedding"], padding])))
    return ds, model


def weighted_terms(z, outputs, penalty):
    """Return the four terms by their names in the arrays, without and with their weights."""
    plain = {
        "main": outputs.losses["main"],
        "cl_user": InfoNCE(temperature=float(z["hp_temperature"]))(outputs),
        "reg": L2(on="propagated")(outputs),
        "irm": penalty(outputs),
    }
    weights = (1.0, *(float(z[f"hp_{name}"]) for name in ("lambda_cl", "reg_coeff", "penalty_irm_coeff")))
    return plain, {name: weight * plain[name] for name, weight in zip(plain, weights, strict=True)}


def test_embeddings_scores_and_metrics(arrays):
    ds, model = build(arrays)
    encoded = model.encode()
    assert tuple(encoded.behaviors) == ds.behaviors
    for name, (users, items) in encoded.behaviors.items():
        assert_matches(users, arrays[f"user_emb_{name}"])
        assert_matches(items, arrays[f"item_emb_{name}"])
    assert_matches(encoded.users, arrays["user_emb_final"])
    assert_matches(encoded.items, arrays["item_emb_final"])
    assert_matches(model.scorer().scores(torch.arange(ds.num_users)), arrays["score_matrix"])
    padding = torch.stack([items[-1] for _, items in model.encoder().values()]).mean(0)
    assert_matches(encoded.users @ padding, arrays["score_padding_item"])
    metrics = mb.evaluate(model, ds, k=(5, 10)).metrics
    made = [metrics[name] for name in ("HR@5", "HR@10", "NDCG@5", "NDCG@10")]
    assert made == pytest.approx(arrays["metric_values"].tolist(), abs=1e-12)


def test_every_layer(arrays):
    ds, model = build(arrays)
    count = int(arrays["hp_layers"])
    for name in ds.behaviors:
        for layer in range(count + 1):
            only = [float(number == layer) for number in range(count + 1)]
            users, items = propagate(model.encoder.relations[name], *model.tables, count, layer_norm=True, weights=only)
            assert_matches(users[:-1], arrays[f"user_layers_{name}"][layer])
            assert_matches(items[:-1], arrays[f"item_layers_{name}"][layer])


@pytest.mark.parametrize("suffix", ["pad", "nopad", "pad_padzero"])
@pytest.mark.parametrize("mode", list(PENALTIES))
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_terms_and_gradients(arrays, suffix, mode, backend):
    z = arrays
    ds, model = build(z, padding_zero=suffix.endswith("padzero"), backend=backend)
    outputs = model.step(golden_triples(z, suffix.partition("_")[0]), StepContext())
    assert_matches(torch.stack([outputs.risks[name] for name in ds.behaviors]), z[f"loss_bpr_per_behavior__{suffix}"])
    scores = z[f"pos_score_per_behavior__{suffix}"] - z[f"neg_score_per_behavior__{suffix}"]
    assert_matches(torch.stack([outputs.margins[name] for name in ds.behaviors]), scores)
    sizes = torch.stack([triple_norm(*outputs.triples[name]) for name in ds.behaviors])
    assert_matches(sizes, z[f"loss_reg_per_behavior__{suffix}"])

    plain, weighted = weighted_terms(z, outputs, PENALTIES[mode])
    assert_matches(weighted["irm"], z[f"loss_irm_weighted__{mode}_{suffix}"])
    terms = {f"{name}__{suffix}": term for name, term in plain.items() if name != "irm"}
    terms[f"irm__{mode}_{suffix}"] = plain["irm"]
    terms[f"total__{mode}_{suffix}"] = sum(weighted.values())
    for name, value in terms.items():
        assert_matches(value, z[f"loss_{name}"])
        gradients = torch.autograd.grad(value, model.tables, retain_graph=True)
        for side, gradient in zip(("user", "item"), gradients, strict=True):
            assert_matches(gradient[:-1], z[f"grad_{side}__{name}"])
    # The padding item's gradient is its L2 part alone: the two halves of each padded margin cancel, and what is left of
    # them is rounding of the reference itself (its rex and v1 values already differ by 4e-6 of the largest entry).
    for side, gradient in zip(("user", "item"), gradients, strict=True):
        reference = z.get(f"grad_{side}_padding__total__{mode}_{suffix}")
        if reference is not None and np.abs(reference).max() > 0:
            assert_matches(gradient[-1], reference, tolerance=3e-5)


@pytest.mark.parametrize("kind", ["pad", "nopad"])
@pytest.mark.parametrize("mode", list(PENALTIES))
def test_first_adam_step(arrays, kind, mode):
    z = arrays
    _, model = build(z)
    training = model.options.training().replace(
        lr=float(z["hp_adam_lr"]), weight_decay=float(z["hp_adam_weight_decay"])
    )
    outputs = model.step(golden_triples(z, kind), StepContext())
    model.update_rule(training).step(weighted_terms(z, outputs, PENALTIES[mode])[1])
    for side, table in zip(("user", "item"), model.tables, strict=True):
        assert_matches(table[:-1], z[f"after_adam_step_{side}__{mode}_{kind}"])
