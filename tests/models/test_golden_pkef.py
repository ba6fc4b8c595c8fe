"""PKEF against the arrays that the published code produced."""

import pytest
import torch

import mbgraph as mb
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.models import PKEF, RaggedBatch, StepContext
from mbgraph.testing import assert_matches, golden_dataset

GOLDEN = "pkef"


def build(z):
    ds = golden_dataset(z)
    assert float(z["hp_denoise_eps"]) == 1e-12
    model = PKEF(
        ds.graph, ds.target, variant="official", embedding_dim=int(z["dim"]), layers=z["hp_gnn_layers"].tolist(),
        coefficients=z["hp_coefficient"].tolist(), scale=float(z["hp_mult"]), loss_factor=float(z["hp_loss_factor"]),
        fused=float(z["hp_denoise_cascade"]), shared=float(z["hp_denoise_pme"]),
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(z[f"param_{name}"]))
    return ds, model


def golden_batch(z):
    groups = {}
    for name in z:
        if name.startswith("batch_") and name.endswith("_users"):
            group = name.removeprefix("batch_").removesuffix("_users")
            rows = tuple(torch.from_numpy(z[f"batch_{group}_{part}"]) for part in ("users", "pos", "neg"))
            groups[group.removeprefix("uni_").replace("_", "-")] = rows
    return RaggedBatch(groups)


def test_embeddings_scores_and_metrics(arrays):
    ds, model = build(arrays)
    for kind, made in zip(("parallel", "cascade"), model.propagated(model._means), strict=True):
        assert tuple(made) == ds.behaviors
        for name, (users, items) in made.items():
            assert_matches(users, arrays[f"user_emb_{kind}_{name}"])
            assert_matches(items, arrays[f"item_emb_{kind}_{name}"])
    assert_matches(model.scorer().scores(torch.arange(ds.num_users)), arrays["score_matrix"])
    metrics = mb.evaluate(model, ds, k=(5, 10)).metrics
    made = [metrics[name] for name in ("HR@5", "HR@10", "NDCG@5", "NDCG@10")]
    assert made == pytest.approx(arrays["metric_values"].tolist(), abs=1e-12)


def test_terms_and_gradients(arrays):
    z = arrays
    _, model = build(z)
    outputs = model.step(golden_batch(z), StepContext())
    expected = {}
    for name, weight in zip(z["behaviors"].tolist(), z["hp_coefficient"].tolist(), strict=True):
        for term in [name for name in z if name.startswith("loss_term_")]:
            kind, _, of = term.removeprefix("loss_term_").partition("_")
            if weight and of.partition("_")[0] == name:
                mine = {"uni": "unique", "pme": "expert"}.get(kind, kind) + "." + of.replace("_", "-")
                expected[mine] = float(z["hp_loss_factor"]) * weight * z[term]
    assert set(outputs.losses) == set(expected)
    for name, loss in outputs.losses.items():
        assert_matches(loss, expected[name])
    main = sum(outputs.losses.values())
    assert_matches(main, z["loss_pre"])
    norm = sum(entry.replace(weight=1.0)(outputs) for entry in model.options.regularizers())
    norm = float(z["hp_reg"]) * norm
    assert_matches(norm, z["loss_reg_weighted"])
    assert_matches(main + norm, z["loss_total"])
    (main + norm).backward()
    for name, gradient in {
        "user": model.user_embedding, "item": model.item_embedding,
        "gate_weight": model.gate_weight, "gate_bias": model.gate_bias,
    }.items():  # fmt: skip
        assert_matches(gradient.grad, z[f"grad_{name}__total"])


def test_the_published_training():
    options = PKEF.Options(variant="official")
    training = options.training()
    assert (training.batch_size, training.epochs, training.history) == (256, 100, "behavior")
    assert (training.lr, training.lr_decay, training.lr_decay_steps) == (1e-3, 0.96, 39)
    assert options.users_per_epoch == 10_000
    assert {entry.term: entry.weight for entry in options.regularizers()} == {"l2": 0.01, "l2-gate": 0.01}


def test_batches_are_the_differences_of_the_behaviors(tiny):
    model = PKEF(tiny.graph, tiny.target, behaviors=tiny.behaviors, embedding_dim=4, positives_per_user=2)
    batches = model.batches(tiny, model.options.training().replace(batch_size=4), 1)
    assert len(batches) == 2
    sets = {name: set(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True)) for name, pairs in tiny.edges.items()}
    groups = set()
    for batch in batches.epoch(1):
        groups |= set(batch.groups)
        for name, rows in batch.groups.items():
            one, _, other = name.partition("-without-")
            wanted = sets[one] - (sets[other] if other else set())
            users, positives, negatives = (part.tolist() for part in rows)
            assert set(zip(users, positives, strict=True)) <= wanted
            assert not set(zip(users, negatives, strict=True)) & wanted
            counts = {user: sum(owner == user for owner, _ in wanted) for user in users}
            assert all(users.count(user) == min(count, 2) for user, count in counts.items())
    # whatever is carted or bought was viewed; nothing of views is trained on
    assert groups == {"cart", "buy", "cart-without-buy", "buy-without-cart"}


def test_a_score_is_the_sum_of_gated_experts(tiny):
    """As the equations have it, expert by expert."""
    model = PKEF(tiny.graph, tiny.target, behaviors=tiny.behaviors, embedding_dim=4, shared=0.5, rng=3)
    cascade = model.encode().behaviors
    own = cascade[tiny.target]
    with torch.no_grad():
        experts = [own[0][:, None] * own[1][None]]
        for name in ("view", "cart"):
            parts = [
                0.5 * ((rows * mine).sum(1) / (mine.square().sum(1) + 1e-12))[:, None] * mine
                for rows, mine in zip(cascade[name], own, strict=True)
            ]
            experts.append(parts[0][:, None] * parts[1][None])
        both = torch.cat(torch.broadcast_tensors(own[0][:, None], own[1][None]), -1)
        gate = torch.softmax(both @ model.gate_weight + model.gate_bias, -1)
        expected = 300 * sum(gate[..., k] * expert.sum(-1) for k, expert in enumerate(experts))
    users = torch.tensor([4, 0, 1, 2])
    assert_matches(model.scorer().scores(users), expected[users])


def test_wrong_options_are_one_line(tiny):
    def build_with(**options):
        return PKEF(tiny.graph, tiny.target, behaviors=tiny.behaviors, **options)

    with pytest.raises(UsageError, match=r"layers of model 'pkef' has 2 numbers for 3 behaviors; give one for each"):
        build_with(layers=(1, 1))
    with pytest.raises(UsageError, match=r"coefficients of model 'pkef' are all 0"):
        build_with(coefficients=(0, 0, 0))
    with pytest.raises(UnknownNameError, match="cart"):
        build_with(not_unique=("carts",))
    model = build_with(not_unique=("cart",))
    training = model.options.training()
    assert "buy-without-cart" not in next(model.batches(tiny, training, 0).epoch(1)).groups
    with pytest.raises(UsageError, match=r"knows no sampler 'per-edge'; leave sampler out"):
        model.batches(tiny, training.replace(sampler="per-edge"), 0)
