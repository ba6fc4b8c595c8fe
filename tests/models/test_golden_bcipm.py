"""BCIPM against the arrays that the published code produced."""

import numpy as np
import pytest
import torch

import mbgraph as mb
from mbgraph.errors import UsageError
from mbgraph.models import ANY, BCIPM, BCIPMBatch, StepContext
from mbgraph.regularizers import L2, IRMv1, REx
from mbgraph.testing import assert_matches, golden_dataset

GOLDEN = "bcipm"
KINDS = [("pad", False), ("nopad", False), ("pad", True)]


def build(z, padding_zero=False, **options):
    ds = golden_dataset(z)
    official = {"variant": "official", "gamma": float(z["hp_bpr_gamma"]), "degree_eps": float(z["hp_lambda_eps"])}
    model = BCIPM(
        ds.graph,
        ds.target,
        embedding_dim=int(z["dim"]),
        num_layers=int(z["hp_layers"]),
        pointwise=float(z["hp_log_reg"]),
        **{**official, **options},
    )
    with torch.no_grad():
        for side, table in zip(("user", "item"), model.tables, strict=True):
            padding = z[f"param_{side}_padding"] * (not padding_zero)
            table.copy_(torch.from_numpy(np.vstack([z[f"param_{side}_embedding"], padding]))[: len(table)])
        for name, parameter in others(model).items():
            parameter.copy_(torch.from_numpy(z[f"param_{name}"]))
    return ds, model


def others(model):
    return {
        "behavior_embedding": model.behavior_vectors,
        "RZ_weight": model.gates.weight,
        "U_weight": model.candidate.weight,
    }


def golden_batch(z, ds, kind):
    point, pair = (
        {name: torch.from_numpy(z[f"batch_{kind}_{group}_{name}"]) for name in ("users", "pos", "neg")}
        for group in ("point", "pair")
    )
    owners, bought = ds.csr(ds.target).gather(point["users"].numpy())
    return BCIPMBatch(
        point["users"],
        {ANY: point["pos"], ds.target: pair["pos"]},
        {ANY: point["neg"], ds.target: pair["neg"]},
        torch.from_numpy(z[f"batch_{kind}_point_behavior"]),
        owners=torch.from_numpy(owners),
        bought=torch.from_numpy(bought),
    )


def test_embeddings_scores_and_metrics(arrays):
    z = arrays
    ds, model = build(z)
    for part, pair in zip(("global", "buy"), model.passes.whole(model.tables), strict=True):
        assert_matches(pair[0][: ds.num_users], z[f"user_emb_{part}"])
        assert_matches(pair[1][: ds.num_items], z[f"item_emb_{part}"])
    assert_matches(model.local_shares, z["user_lambda"])
    encoded = model.encode()
    scores = model.scorer().scores(torch.arange(ds.num_users))
    divisor = z["user_lambda"][:, None]  # 1e8 for users without a purchase
    assert_matches(encoded.users.detach().numpy() / divisor, z["user_emb_final"] / divisor)
    assert_matches(encoded.items, z["item_emb_final"])
    assert_matches(scores.numpy() / divisor, z["score_matrix"] / divisor)
    metrics = mb.evaluate(model, ds, k=(5, 10)).metrics
    made = [metrics[name] for name in ("HR@5", "HR@10", "NDCG@5", "NDCG@10")]
    assert made == pytest.approx(z["metric_values"].tolist(), abs=1e-12)


@pytest.mark.parametrize(("kind", "padding_zero"), KINDS)
def test_terms_and_gradients(arrays, kind, padding_zero):
    z = arrays
    ds, model = build(z, padding_zero)
    suffix = f"{kind}_padzero" if padding_zero else kind
    batch = golden_batch(z, ds, kind)
    assert batch.negatives[ANY].shape[1] == int(z["hp_neg_count"])
    outputs = model.step(batch, StepContext())
    share = float(z["hp_log_reg"])
    assert_matches(outputs.losses["pointwise"] / share, z[f"loss_bce__{suffix}"])
    assert_matches(outputs.losses["main"] / (1 - share), z[f"loss_bpr__{suffix}"])
    users, positives, negatives = outputs.triples[ds.target]
    assert_matches((users * positives).sum(1), z[f"pair_pos_score__{suffix}"])
    assert_matches((users * negatives).sum(1), z[f"pair_neg_score__{suffix}"])
    (norm,) = model.options.regularizers()
    assert isinstance(norm, L2)
    size = norm(outputs)
    assert_matches(size, z[f"loss_emb__{suffix}"])
    total = sum(outputs.losses.values()) + float(z["hp_reg_weight"]) * size
    assert_matches(total, z[f"loss_total__{suffix}"])
    total.backward()
    for side, table in zip(("user", "item"), model.tables, strict=True):
        assert_matches(table.grad[:-1], z[f"grad_{side}__total__{suffix}"])
    for name, parameter in others(model).items():
        assert_matches(parameter.grad, z[f"grad_{name}__total__{suffix}"])


def test_users_without_a_purchase_score_like_others_by_default(arrays):
    z = arrays
    ds, model = build(z, variant="mbgraph", gamma=0.0, degree_eps=0.0)
    assert len(model.user_embedding) == ds.num_users
    without = ds.csr(ds.target).degrees() == 0
    assert without.any()
    scores = model.scorer().scores(torch.arange(ds.num_users)).numpy()
    assert_matches(scores[~without], z["score_matrix"][~without])
    assert_matches(scores[without], z["score_matrix"][without] / 1e8)
    plain, official = (one.step(golden_batch(z, ds, "pad"), StepContext()) for one in (model, build(z)[1]))
    for term, loss in plain.losses.items():
        assert_matches(loss, official.losses[term].detach().numpy())


def test_every_edge_comes_with_its_user_s_purchases(small):
    model = BCIPM(small.graph, small.target, embedding_dim=8)
    training = model.options.training().replace(batch_size=100)
    batches = model.batches(small, training, 1)
    found = list(batches.epoch(1))
    assert len(found) == len(batches) == -(-sum(len(pairs) for pairs in small.edges.values()) // 100)
    purchases = small.csr("buy")
    for batch in found:
        for row, user in enumerate(batch.users.tolist()):
            assert batch.bought[batch.owners == row].tolist() == purchases.row(user).tolist()
    with pytest.raises(
        UsageError, match=r"bcipm is trained on every edge and knows no sampler 'per-user'; leave sampler"
    ):
        model.batches(small, training.replace(sampler="per-user"), 1)


def step_of(small, number=0, **options):
    """Return a model with these options, one batch, and its outputs at a step."""
    model = BCIPM(small.graph, small.target, embedding_dim=8, rng=2, **options)
    batch = next(iter(model.batches(small, model.options.training().replace(batch_size=60), 1).epoch(1)))
    return model, batch, model.step(batch, StepContext(1, number))


def test_propagations_that_stand_still(small):
    """The step that propagates gives exact numbers; the next ones see new tables and old neighbours."""
    _, _, exact = step_of(small)
    model, batch, first = step_of(small, refresh=3)
    assert_matches(first.losses["main"], exact.losses["main"].detach())
    before = [part.clone() for pair in model.passes.upper for part in pair]
    with torch.no_grad():
        for table in model.tables:
            table += 0.1
    second = model.step(batch, StepContext(1, 1))
    assert all(
        torch.equal(one, two) for one, two in zip(before, [p for pair in model.passes.upper for p in pair], strict=True)
    )
    users = batch.rows("buy")[0]
    start = before[0] + model.user_embedding
    expected = model.local_shares[users].unsqueeze(1) * (start + start + before[2])[users]
    assert_matches(second.triples["buy"][0][:, 8:], expected.detach())
    second.losses["main"].backward()
    assert model.user_embedding.grad.any()
    model.step(batch, StepContext(1, 3))
    assert not torch.equal(before[0], model.passes.upper[0][0])
    model.begin_epoch(StepContext(2, 0))
    assert model.passes.upper is None
    with torch.no_grad():
        assert_matches(model.encode().users, BCIPM.encode(twin(small, model)).users)


def twin(small, model):
    """Return the exact model with the same parameters."""
    made = BCIPM(small.graph, small.target, embedding_dim=8)
    made.load_state_dict(model.state_dict())
    return made


def test_the_own_item_may_be_left_out(small):
    model, batch, outputs = step_of(small, leave_one_out=True)
    _, _, whole = step_of(small)
    encoded, _ = model.passes.whole(model.tables)
    users, positives, _ = batch.rows("buy")
    own = model.preference(encoded[0][users], encoded[1][positives], model.behavior_vectors[-1])
    share = 1 - model.local_shares[users].unsqueeze(1)
    made = whole.triples["buy"][0][:, :8] - outputs.triples["buy"][0][:, :8]
    assert_matches(made, (share * own).detach())


@pytest.mark.parametrize(("combine", "weights"), [("published", (1, 2, 1.5, 4 / 3)), ("sum", (1, 1, 1, 1))])
def test_layer_weights(combine, weights):
    assert BCIPM.Options(num_layers=3, combine=combine).layer_weights() == pytest.approx(weights)


def test_regularizers_read_the_edges_of_every_behavior(small):
    _, batch, outputs = step_of(small)
    assert tuple(outputs.margins) == small.behaviors
    for number, name in enumerate(small.behaviors):
        assert outputs.margins[name].shape == (int((batch.kinds == number).sum()), 4)
    for penalty in (REx(), IRMv1()):
        assert float(penalty(outputs).detach()) > 0
