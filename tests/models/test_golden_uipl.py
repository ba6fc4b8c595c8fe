"""UIPL against the arrays that the published code produced; the noise is the one that the code drew."""

import pytest
import torch

import mbgraph as mb
from mbgraph.errors import UsageError
from mbgraph.models import ANY, UIPL, StepContext, UIPLBatch
from mbgraph.regularizers import InfoNCE, REx
from mbgraph.testing import assert_matches, golden_dataset

GOLDEN = "uipl"
TERMS = {"main": "bpr", "prior": "kl", "orthogonal": "ort", "cross": "cross", "contrast": "nce"}
LAYERS = {
    "hidden": "enc_hidden",
    "mean": "enc_mu",
    "log_variance": "enc_logvar",
    "decoded": "dec_hidden",
    "output": "dec_output",
}


def weights_of(z):
    return {term: float(z[f"hp_{'log' if name == 'cross' else name}_reg"]) for term, name in TERMS.items()}


def build(z, variant="official"):
    ds = golden_dataset(z)
    names = {"main": "ranking", **{term: term for term in TERMS if term != "main"}}
    model = UIPL(
        ds.graph,
        ds.target,
        variant=variant,
        embedding_dim=int(z["dim"]),
        num_layers=int(z["hp_layers"]),
        gamma=float(z["hp_bpr_gamma"]),
        temperature=float(z["hp_nce_temperature"]),
        **{f"{names[term]}_weight": weight for term, weight in weights_of(z).items()},
    )
    assert model.autoencoder.latent == int(z["hp_vae_latent"])
    assert model.autoencoder.hidden.out_features == int(z["hp_vae_hidden"])
    with torch.no_grad():
        for array, parameter, real in stored(z, model, "param_{}"):
            parameter[:real].copy_(array)
    return ds, model


def stored(z, model, pattern):
    """Pair arrays of parameters with the model's, and say how many rows are no padding."""
    tables = "_embedding" if "param" in pattern else ""
    for side, table, count in zip(("user", "item"), model.tables, (model.num_users, model.num_items), strict=True):
        yield torch.from_numpy(z[pattern.format(f"{side}{tables}")]), table, count
    for layer, name in LAYERS.items():
        for part in ("weight", "bias"):
            parameter = getattr(getattr(model.autoencoder, layer), part)
            yield torch.from_numpy(z[pattern.format(f"vae_{name}_{part}")]), parameter, len(parameter)


def golden_batch(z, kind):
    parts = {name: torch.from_numpy(z[f"batch_{kind}_{name}"]) for name in ("users", "all_pos", "all_neg")}
    positives, negatives = parts["all_pos"], parts["all_neg"]
    users = parts["users"].masked_fill(parts["users"] < 0, int(z["isolated_user"]))
    bought, other = (torch.from_numpy(z[f"batch_{kind}_target_{name}"]) for name in ("pos", "neg"))
    target = str(z["behaviors"][-1])
    return UIPLBatch(
        users,
        {ANY: positives, target: bought},
        {ANY: negatives, target: other},
        noise=torch.from_numpy(z[f"noise_eps__{kind}"]),
        other=torch.tensor([int(z[f"nce_positive_graph_index__{kind}"])]),
    )


def test_embeddings_scores_and_metrics(arrays):
    z = arrays
    ds, model = build(z)
    model.score_noise = lambda number, shape: torch.from_numpy(z["noise_eps_predict"][number])
    environments = model.environments
    assert list(environments) == [
        ("buy",), ("cart",), ("view",), ("buy", "cart"), ("buy", "view"), ("cart", "view"), ("buy", "cart", "view"),
    ]  # fmt: skip
    assert_matches(model.shares[:, : ds.num_items], z["behavior_item_weight"])
    (start,) = model._encoded([environments["buy", "cart", "view"]], model.tables)
    assert_matches(start[0][: ds.num_users], z["user_emb_pretrain"])
    assert_matches(start[1][: ds.num_items], z["item_emb_pretrain"])
    for number, (users, items) in enumerate(model._encoded(list(environments.values()), start)):
        assert_matches(users[: ds.num_users], z["user_emb_graphs"][number])
        assert_matches(items[: ds.num_items], z["item_emb_graphs"][number])
    encoded = model.encode()
    assert tuple(encoded.behaviors) == ds.behaviors
    assert_matches(encoded.behaviors["cart"][0], z["user_emb_graphs"][1])
    assert_matches(encoded.users, z["user_emb_invariant_final"] + z["user_emb_specific_final"])
    assert_matches(encoded.items, z["item_emb_final"])
    assert_matches(model.scorer().scores(torch.arange(ds.num_users)), z["score_matrix"])
    metrics = mb.evaluate(model, ds, k=(5, 10)).metrics
    made = [metrics[name] for name in ("HR@5", "HR@10", "NDCG@5", "NDCG@10")]
    assert made == pytest.approx(z["metric_values"].tolist(), abs=1e-12)


@pytest.mark.parametrize("kind", ["pad", "nopad"])
def test_terms_and_gradients(arrays, kind):
    z = arrays
    _, model = build(z)
    batch = golden_batch(z, kind)
    outputs = model.step(batch, StepContext())
    for term, weight in weights_of(z).items():
        assert_matches(outputs.losses[term] / weight, z[f"loss_{TERMS[term]}__{kind}"])
    (norm,) = model.options.regularizers()
    size = norm(outputs)
    assert_matches(size, z[f"loss_emb__{kind}"])
    total = sum(outputs.losses.values()) + float(z["hp_reg_weight"]) * size
    assert_matches(total, z[f"loss_total__{kind}"])
    total.backward()
    for array, parameter, real in stored(z, model, "grad_{}__total__" + kind):
        assert_matches(parameter.grad[:real], array)


def test_users_without_any_behavior_leave_every_term_by_default(arrays):
    z = arrays
    ds, model = build(z, variant="mbgraph")
    assert len(model.user_embedding) == ds.num_users
    padded, plain = golden_batch(z, "pad"), golden_batch(z, "nopad")
    outputs = model.step(padded, StepContext())
    present = int((padded.positives[ANY] >= 0).sum())
    assert present < len(padded)
    assert len(outputs.margins["buy"]) == present
    assert len(outputs.triples["buy"][0]) == int((padded.positives["buy"] >= 0).sum()) < present
    official = build(z)[1].step(plain, StepContext())
    for term, loss in model.step(plain, StepContext()).losses.items():
        assert_matches(loss, official.losses[term].detach().numpy())


def test_scores_draw_nothing_by_default(small):
    model, drawn = (UIPL(small.graph, small.target, embedding_dim=8, sampled_scores=drawn) for drawn in (False, True))
    users = torch.arange(5)
    assert model.score_noise(0, (3, 2)) is None
    assert torch.equal(drawn.scorer().scores(users), drawn.scorer().scores(users))
    assert not torch.allclose(model.scorer().scores(users), drawn.scorer().scores(users))


def test_single_environments_are_a_cheaper_choice(small):
    model = UIPL(small.graph, small.target, embedding_dim=8, environments="singles")
    assert list(model.environments) == [("buy",), ("cart",), ("view",), ("buy", "cart", "view")]
    batch = next(iter(model.batches(small, model.options.training(), 1).epoch(1)))
    assert batch.noise.shape == (small.num_users, 4, 2)
    assert set(model.step(batch, StepContext()).losses) == set(TERMS)


def test_regularizers_of_other_models_attach(small):
    model = UIPL(small.graph, small.target, embedding_dim=8)
    regularizers = [*model.options.regularizers(), InfoNCE(), REx()]
    trainer = mb.Trainer(model, small, regularizers=regularizers, epochs=1, batch_size=64, diagnose_every=1)
    record = trainer.fit().records[0]
    assert set(record["terms"]) == {*TERMS, "l2", "infonce", "rex", "total"}
    assert all(record["gradient_norms"][name] > 0 for name in ("infonce", "rex"))
    encoded, batch = model.encode(), next(iter(trainer.batches.epoch(1)))
    anchors = model.step(batch, StepContext()).anchors["user"]
    assert tuple(anchors) == small.behaviors
    for name, rows in anchors.items():
        assert_matches(rows, encoded.behaviors[name][0][batch.distinct("user", "buy")].detach())


def test_one_behavior_is_refused(small):
    one = small.replace(edges={"buy": small.edges["buy"]})
    with pytest.raises(UsageError, match=r"uipl needs an auxiliary behavior .*use --model lightgcn"):
        UIPL(one.graph, one.target)
