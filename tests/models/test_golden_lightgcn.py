"""LightGCN against the arrays that the published code produced, on the target's graph and on the union."""

import pytest
import torch

import mbgraph as mb
from mbgraph.models import LightGCN, StepContext, TripleBatch
from mbgraph.testing import assert_matches, golden_dataset

GOLDEN = "lightgcn"


def build(z, run):
    ds = golden_dataset(z)
    layers = int(z["hp_layers"])
    model = LightGCN(ds.graph, ds.target, union=run == "all", embedding_dim=int(z["dim"]), num_layers=layers)
    with torch.no_grad():
        for side, table in zip(("user", "item"), model.tables, strict=True):
            table.copy_(torch.from_numpy(z[f"param_{side}_embedding"]))
    users, positives, negatives = (torch.from_numpy(z[f"{run}_batch_{part}"]) for part in ("users", "pos", "neg"))
    return ds, model, TripleBatch(users, {ds.target: positives}, {ds.target: negatives})


@pytest.mark.parametrize("run", ["buy", "all"])
def test_layers_embeddings_scores_and_metrics(arrays, run):
    ds, model, _ = build(arrays, run)
    count = model.options.num_layers
    for layer in range(count + 1):
        weights = [float(layer == number) for number in range(count + 1)]
        made = mb.nn.propagate(model.relation(), *model.tables, count, weights=weights)
        for side, rows in zip(("user", "item"), made, strict=True):
            assert_matches(rows, arrays[f"{run}_{side}_layers"][layer])
    encoded = model.encode()
    assert_matches(encoded.users, arrays[f"{run}_user_emb_final"])
    assert_matches(encoded.items, arrays[f"{run}_item_emb_final"])
    assert_matches(model.scorer().scores(torch.arange(ds.num_users)), arrays[f"{run}_score_matrix"])
    metrics = mb.evaluate(model, ds, k=(5, 10)).metrics
    made = [metrics[name] for name in ("HR@5", "HR@10", "NDCG@5", "NDCG@10")]
    assert made == pytest.approx(arrays[f"{run}_metric_values"].tolist(), abs=1e-12)


@pytest.mark.parametrize("run", ["buy", "all"])
def test_terms_gradients_and_the_first_step(arrays, run):
    _, model, batch = build(arrays, run)
    outputs = model.step(batch, StepContext())
    (norm,) = model.options.regularizers()
    size = norm(outputs)
    assert_matches(outputs.losses["main"], arrays[f"{run}_loss_bpr"])
    assert_matches(size, arrays[f"{run}_loss_reg_unweighted"])
    terms = {"main": outputs.losses["main"], "l2": float(arrays["hp_decay"]) * size}
    assert_matches(sum(terms.values()), arrays[f"{run}_loss_total"])
    rule = model.update_rule(model.options.training().replace(lr=float(arrays["hp_adam_lr"])))
    rule.step(terms)
    for side, table in zip(("user", "item"), model.tables, strict=True):
        assert_matches(table.grad, arrays[f"{run}_grad_{side}__total"])
        assert_matches(table, arrays[f"{run}_after_adam_step_{side}"])
