"""MBSSL against the arrays that the published code produced."""

import numpy as np
import pytest
import torch
from scipy import sparse

import mbgraph as mb
from mbgraph.models import MBSSL, StepContext, UserBatch
from mbgraph.nn import Relation, behavior_attention, most_similar
from mbgraph.testing import assert_matches, golden_dataset

GOLDEN = "mbssl"
TERMS = {"main": "rec", "intra": "ssl", "inter.view": "ssl2_view", "inter.cart": "ssl2_cart", "norm": "emb"}


def mine(name):
    """Return our name of a parameter of the published code."""
    number = name.rpartition("_")[2]
    return {
        f"W_gc_{number}": f"layer_weights.{number}",
        f"W_rel_{number}": f"relation_weights.{number}",
        "attention_s1": "attention",
        "attention_s2": "attention_out",
    }.get(name, name)


def build(z):
    ds = golden_dataset(z)
    assert float(z["hp_leaky_slope"]) == 0.01
    model = MBSSL(
        ds.graph, ds.target, variant="official", embedding_dim=int(z["dim"]), num_layers=int(z["hp_layers"]),
        attention_dim=int(z["hp_att_dim"]), dropout=float(z["hp_mess_dropout"]), decay=float(z["hp_decay"]),
        coefficients=z["hp_coefficient"].tolist(), unseen=z["hp_wid"].tolist(), temperature=float(z["hp_ssl_temp"]),
        intra=float(z["hp_ssl_reg"]), inter=z["hp_ssl_reg_inter"].tolist(), beta=float(z["hp_meta_beta"]),
        perturb={0: "nodes", 1: "edges", 2: "edges-per-layer"}[int(z["hp_aug_type"])],
        perturb_rate=float(z["hp_ssl_ratio"]), relax=float(z["hp_meta_relax"]),
        similar_users=int(z["hp_topk1_user"]), similar_items=int(z["hp_topk1_item"]),
    )  # fmt: skip
    parameters = dict(model.named_parameters())
    assert {mine(name) for name in z["param_order_in_reference"].tolist()} == set(parameters)
    with torch.no_grad():
        for name in z["param_order_in_reference"].tolist():
            parameters[mine(name)].copy_(torch.from_numpy(z[f"param_{name}"]))
    model.perturbed = tuple(
        [Relation(*z[f"sub{view}_buy_edges_kept"].T, ds.num_users, ds.num_items)] for view in (1, 2)
    )
    for side in ("user", "item"):
        count = getattr(model.options, f"similar_{side}s")
        model.similar[side] = most_similar(sparse.csr_matrix(z[f"similarity_{side}"]), count)
    return ds, model


def golden_batch(z):
    pairs = {}
    for name in z["behaviors"].tolist():
        lists = z[f"batch_{name}_items_padded"]
        at, place = np.nonzero(lists < int(z["n_items"]))
        pairs[name] = (torch.from_numpy(at), torch.from_numpy(lists[at, place]))
    assert np.array_equal(z["batch_users"][pairs["buy"][0]], z["batch_pair_users"])
    assert np.array_equal(pairs["buy"][1], z["batch_pair_items"])
    return UserBatch(torch.from_numpy(z["batch_users"]), pairs)


def test_embeddings_scores_and_metrics(arrays):
    ds, model = build(arrays)
    z = arrays
    encoded = model.encode()
    for name, row in zip(ds.behaviors, model.relation_rows(), strict=True):
        assert_matches(encoded.behaviors[name][0], z[f"user_emb_{name}"])
        assert_matches(encoded.behaviors[name][1], z[f"item_emb_{name}"])
        assert_matches(row, z[f"relation_emb_{name}"])
    for view in (1, 2):
        users, items = model.propagated(model.relations, model.perturbed[view - 1])
        assert_matches(users[:, -1], z[f"user_emb_sub{view}_buy"])
        assert_matches(items[:, -1], z[f"item_emb_sub{view}_buy"])
    assert_matches(model.scorer().scores(torch.arange(ds.num_users)), z["score_matrix"])
    metrics = mb.evaluate(model, ds, k=(5, 10)).metrics
    made = [metrics[name] for name in ("HR@5", "HR@10", "NDCG@5", "NDCG@10")]
    assert made == pytest.approx(z["metric_values"].tolist(), abs=1e-12)


def test_attention_of_the_last_layer(arrays, monkeypatch):
    _, model = build(arrays)
    seen = []

    def attend(*given):
        seen.append(behavior_attention(*given))
        return seen[-1]

    monkeypatch.setattr("mbgraph.models.mbssl.model.behavior_attention", attend)
    model.encode()
    for (_, attention), side in zip(seen[-2:], ("user", "item"), strict=True):
        assert_matches(attention, arrays[f"attention_{side}_last_layer"])


def test_too_similar_nodes(arrays):
    _, model = build(arrays)
    for side, name in (("user", "masked_user"), ("item", "masked_item_with_token")):
        lists = model.similar[side].numpy()
        mask = np.zeros_like(arrays[name])
        at, place = np.nonzero(lists >= 0)
        mask[at, lists[at, place]] = True
        assert np.array_equal(mask, arrays[name])
        assert mask.any()


def test_terms_and_gradients(arrays):
    z = arrays
    _, model = build(z)
    losses = model.step(golden_batch(z), StepContext()).losses
    assert list(losses) == list(TERMS)
    for mine_, theirs in {
        "main": "rec", "norm": "emb_weighted", "intra": "ssl_weighted",
        "inter.view": "ssl2_weighted_aux_view", "inter.cart": "ssl2_weighted_aux_cart",
    }.items():  # fmt: skip
        assert_matches(losses[mine_], z[f"loss_{theirs}"])
    assert_matches(sum(losses.values()), z["loss_total"])
    parameters = dict(model.named_parameters())
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for term, suffix in TERMS.items():
        gradients = torch.autograd.grad(losses[term], list(parameters.values()), retain_graph=True, allow_unused=True)
        found = dict(zip(parameters, gradients, strict=True))
        for name in z["param_order_in_reference"].tolist():
            gradient = found[mine(name)]
            gradient = torch.zeros_like(parameters[mine(name)]) if gradient is None else gradient
            assert_matches(gradient, z[f"grad_{name}__{suffix}"])
            sums[mine(name)] += gradient
    for name in z["param_order_in_reference"].tolist():
        assert_matches(sums[mine(name)], z[f"grad_{name}__total"])


def test_two_steps_of_the_balance(arrays):
    """The second on the same parameters and batch, with the norms of the first."""
    z = arrays
    _, model = build(z)
    rule = model.update_rule(model.options.training())
    parameters = dict(model.named_parameters())
    for step in ("step1", "step2"):
        rule.derive(model.step(golden_batch(z), StepContext()).losses)
        for name in z["param_order_in_reference"].tolist():
            assert_matches(parameters[mine(name)].grad, z[f"grad_{name}__hmg_{step}"])
    assert rule.exempt == mine(str(z["hmg_nonshared_parameter"]))
