"""MB-CGCN against the arrays that the published code produced."""

import itertools

import pytest
import torch

import mbgraph as mb
from mbgraph.errors import UsageError
from mbgraph.models import MBCGCN, StepContext, TripleBatch
from mbgraph.regularizers import InfoNCE, REx
from mbgraph.testing import assert_matches, golden_dataset

GOLDEN = "mbcgcn"


def build(z):
    ds = golden_dataset(z)
    layers = [int(z[f"hp_layers_{name}"]) for name in ds.behaviors]
    model = MBCGCN(ds.graph, ds.target, variant="official", embedding_dim=int(z["dim"]), layers=layers)
    with torch.no_grad():
        for name, parameter in stored(z, ds, model, "param_{}"):
            parameter.copy_(name)
    return ds, model


def stored(z, ds, model, pattern):
    """Pair the arrays of parameters with the model's, tables first."""
    tables = "_embedding" if "param" in pattern else ""
    for side, table in zip(("user", "item"), model.tables, strict=True):
        yield torch.from_numpy(z[pattern.format(f"{side}{tables}")]), table
    for number, (one, two) in enumerate(itertools.pairwise(ds.behaviors)):
        for side, weights in (("user", model.user_transforms), ("item", model.item_transforms)):
            yield torch.from_numpy(z[pattern.format(f"W_{side}_{one}_to_{two}")]), weights[number]


def golden_batch(z, ds):
    users, positives, negatives = (torch.from_numpy(z[f"batch_{part}"]) for part in ("users", "pos", "neg"))
    return TripleBatch(users, {ds.target: positives}, {ds.target: negatives})


def terms_of(z, model, outputs):
    """Return the golden objective: the reference divides both norms by its configured batch size."""
    rows, transformations = (entry.replace(weight=float(z["hp_decay"])) for entry in model.options.regularizers())
    norms = {entry.term: entry.weight * entry(outputs) for entry in (rows, transformations)}
    return {**outputs.losses, **norms}


def test_embeddings_scores_and_metrics(arrays):
    ds, model = build(arrays)
    encoded = model.encode()
    assert tuple(encoded.behaviors) == ds.behaviors
    for number, (name, (users, items)) in enumerate(encoded.behaviors.items()):
        assert_matches(users, arrays[f"user_emb_{name}"])
        assert_matches(items, arrays[f"item_emb_{name}"])
        if name != ds.target:
            assert_matches(users @ model.user_transforms[number], arrays[f"user_emb_{name}_transformed"])
            assert_matches(items @ model.item_transforms[number], arrays[f"item_emb_{name}_transformed"])
    assert_matches(encoded.users, arrays["user_emb_final"])
    assert_matches(encoded.items, arrays["item_emb_final"])
    assert_matches(model.scorer().scores(torch.arange(ds.num_users)), arrays["score_matrix"])
    metrics = mb.evaluate(model, ds, k=(5, 10)).metrics
    made = [metrics[name] for name in ("HR@5", "HR@10", "NDCG@5", "NDCG@10")]
    assert made == pytest.approx(arrays["metric_values"].tolist(), abs=1e-12)


def test_terms_gradients_and_the_first_step(arrays):
    z = arrays
    ds, model = build(z)
    batch = golden_batch(z, ds)
    assert len(batch) == int(z["hp_batch_size_divisor"])
    terms = terms_of(z, model, model.step(batch, StepContext()))
    assert_matches(terms["main"], z["loss_bpr"])
    assert_matches(terms["l2"] + terms["l2-w"], z["loss_reg_weighted"])
    assert_matches(sum(terms.values()), z["loss_total"])
    lr = float(z["hp_adam_lr"])
    rule = model.update_rule(model.options.training().replace(lr=lr))
    # TensorFlow adds its epsilon before the second moment is corrected: on the first step that is another epsilon here
    rule.optimizer.param_groups[0]["eps"] = 1e-8 / (1 - 0.999) ** 0.5
    rule.step(terms)
    for gradient, parameter in stored(z, ds, model, "grad_{}__total"):
        assert_matches(parameter.grad, gradient)
    for side, table in zip(("user", "item"), model.tables, strict=True):
        assert_matches(table, z[f"after_adam_step_{side}"])


def test_rows_at_the_batch_are_those_of_whole_tables(small):
    model = MBCGCN(small.graph, small.target, embedding_dim=8, layers=(2, 1, 3), rng=4)
    batch = next(iter(model.batches(small, model.options.training().replace(batch_size=50, negatives=3), 2).epoch(1)))
    outputs, encoded = model.step(batch, StepContext()), model.encode()
    users, positives, negatives = batch.rows(small.target)
    margin = (
        (encoded.items[positives].unsqueeze(1) - encoded.items[negatives]) * encoded.users[users].unsqueeze(1)
    ).sum(-1)
    assert_matches(outputs.losses["main"], torch.nn.functional.softplus(-margin).mean().detach())
    anchors = batch.distinct("user", small.target)
    for name, (behavior_users, behavior_items) in encoded.behaviors.items():
        assert_matches(outputs.anchors["user"][name], behavior_users[anchors].detach())
        own_users, own_items, _ = batch.rows(name)
        assert_matches(outputs.triples[name][0], behavior_users[own_users].detach())
        assert_matches(outputs.triples[name][1], behavior_items[own_items].detach())


def test_regularizers_of_other_models_attach(small):
    model = MBCGCN(small.graph, small.target, embedding_dim=8, rng=4)
    own = model.options.regularizers()
    trainer = mb.Trainer(model, small, regularizers=[*own, InfoNCE(), REx()], epochs=1, batch_size=64, diagnose_every=1)
    record = trainer.fit().records[0]
    assert set(record["terms"]) == {"main", "l2", "l2-w", "infonce", "rex", "total"}
    assert record["gradient_norms"]["infonce"] > 0
    assert record["gradient_norms"]["rex"] > 0


@pytest.mark.parametrize(
    ("behaviors", "layers"), [(("v", "b"), [2, 3]), (("v", "c", "b"), [2, 4, 3]), (("v", "l", "c", "b"), [2, 4, 4, 3])]
)
def test_official_layers_of_any_number_of_behaviors(behaviors, layers):
    assert list(MBCGCN.Options(variant="official").layers_of(behaviors).values()) == layers
    assert list(MBCGCN.Options().layers_of(behaviors).values()) == [3] * len(behaviors)


def test_layers_and_behaviors_must_fit(small):
    with pytest.raises(
        UsageError, match=r"layers of model 'mbcgcn' has 2 numbers for 3 behaviors; give one for each of"
    ):
        MBCGCN(small.graph, small.target, layers=(2, 1))
    two = small.replace(edges={name: small.edges[name] for name in ("view", "buy")})
    with pytest.raises(UsageError, match=r"layers of model 'mbcgcn' has 3 numbers for 2 behaviors"):
        MBCGCN(two.graph, two.target, layers=(2, 4, 3))
    one = small.replace(edges={"buy": small.edges["buy"]})
    with pytest.raises(UsageError, match=r"mbcgcn needs an auxiliary behavior .*use --model lightgcn"):
        MBCGCN(one.graph, one.target)
