"""SimGCL against the arrays that the published code produced; the noise is the one that the code drew."""

import numpy as np
import pytest
import torch

import mbgraph as mb
from mbgraph.models import SimGCL, StepContext, TripleBatch
from mbgraph.regularizers import L2, InfoNCE
from mbgraph.testing import assert_matches, golden_dataset

GOLDEN = "simgcl"


def build(z, run):
    ds = golden_dataset(z, f"{run}_metric_test_edges")
    model = SimGCL(
        ds.graph, ds.target, union=run == "all", embedding_dim=int(z["dim"]), num_layers=int(z["hp_layers"]),
        eps=float(z["hp_eps"]), gamma=float(z["hp_bpr_gamma"]),
    )  # fmt: skip
    with torch.no_grad():
        for side, table in zip(("user", "item"), model.tables, strict=True):
            table.copy_(torch.from_numpy(z[f"{run}_param_{side}_embedding"]))
    users, positives, negatives = (torch.from_numpy(z[f"{run}_batch_{part}"]) for part in ("users", "pos", "neg"))

    def noise(view, layer, side, shape, context):
        drawn = torch.from_numpy(z[f"{run}_noise_view{view}_{side}"][layer - 1])
        if layer == model.options.num_layers:  # the code draws it for all nodes, of which the batch's are read
            drawn = drawn[torch.unique(users if side == "user" else positives)]
        assert drawn.shape == shape
        return drawn

    model.noise = noise
    return ds, model, TripleBatch(users, {ds.target: positives}, {ds.target: negatives})


@pytest.mark.parametrize("run", ["buy", "all"])
def test_embeddings_scores_and_metrics(arrays, run):
    ds, model, _ = build(arrays, run)
    encoded = model.encode()
    assert_matches(encoded.users, arrays[f"{run}_user_emb_final"])
    assert_matches(encoded.items, arrays[f"{run}_item_emb_final"])
    assert_matches(model.scorer().scores(torch.arange(ds.num_users)), arrays[f"{run}_score_matrix"])
    # the reference knows no item without a training edge: it cannot rank one
    unknown = arrays[f"{run}_items_not_ranked"]
    users, items = encoded.users.detach(), encoded.items.detach().clone()
    barred = mb.data.interactions.CSR.from_pairs(
        np.repeat(np.arange(ds.num_users), len(unknown)), np.tile(np.sort(unknown), ds.num_users), ds.num_users
    )
    scorer = mb.evaluation.scorers.PairBonusScorer(users, items, barred, np.full(len(barred.indices), -np.inf))
    metrics = mb.evaluate(scorer, ds, k=(5, 10)).metrics
    made = [metrics[name] for name in ("HR@5", "HR@10", "NDCG@5", "NDCG@10")]
    assert made == pytest.approx(arrays[f"{run}_metric_values"].tolist(), abs=1e-12)


@pytest.mark.parametrize("run", ["buy", "all"])
def test_views_terms_gradients_and_the_first_step(arrays, run):
    z = arrays
    _, model, batch = build(z, run)
    outputs = model.step(batch, StepContext())
    for side, nodes in (("user", batch.users), ("item", batch.positives["buy"])):
        for number, view in enumerate(outputs.views[side], 1):
            assert_matches(view, z[f"{run}_view{number}_{side}"][np.unique(nodes)])
    users, items, norm = model.options.regularizers()
    assert isinstance(users, InfoNCE)
    assert isinstance(norm, L2)
    contrasts = [entry.replace(temperature=float(z["hp_temperature"]))(outputs) for entry in (users, items)]
    assert_matches(contrasts[0], z[f"{run}_loss_cl_user"])
    assert_matches(contrasts[1], z[f"{run}_loss_cl_item"])
    assert_matches(sum(contrasts), z[f"{run}_loss_cl_unweighted"])
    size = float(z["hp_reg"]) * norm(outputs)
    assert_matches(size, z[f"{run}_loss_l2_weighted"])
    assert_matches(outputs.losses["main"], z[f"{run}_loss_bpr"])
    terms = {"main": outputs.losses["main"], "contrast": float(z["hp_cl_rate"]) * sum(contrasts), "l2": size}
    assert_matches(sum(terms.values()), z[f"{run}_loss_total"])
    rule = model.update_rule(model.options.training().replace(lr=float(z["hp_adam_lr"])))
    rule.step(terms)
    for side, table in zip(("user", "item"), model.tables, strict=True):
        present = z[f"{run}_{side}_present"]
        assert_matches(table.grad[present], z[f"{run}_grad_{side}__total"][present])
        assert_matches(table[present], z[f"{run}_after_adam_step_{side}"][present])
