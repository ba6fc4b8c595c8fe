"""RMBRec against a dense oracle written from the equations."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mbgraph._dgl import import_dgl
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.models import RMBRec, StepContext, TripleBatch, build_model
from mbgraph.regularizers import InfoNCE, IRMv2, REx

BEHAVIORS = ("view", "cart", "buy")
TARGET = "buy"


def random_graph(num_users=14, num_items=11, seed=0):
    rng = np.random.default_rng(seed)
    dense = {name: rng.random((num_users, num_items)) < 0.3 for name in BEHAVIORS}
    for matrix in dense.values():
        matrix[-1], matrix[:, -1] = False, False
    dense["cart"][:4] = False  # users without a cart
    dense["buy"][2] = False  # a user without the target
    edges = {("user", name, "item"): tuple(map(torch.from_numpy, np.nonzero(m))) for name, m in dense.items()}
    return import_dgl().heterograph(edges, num_nodes_dict={"user": num_users, "item": num_items}), dense


def build(graph, **options):
    return RMBRec(graph, TARGET, behaviors=BEHAVIORS, **options)


def draw_batch(dense, users, seed=1):
    rng = np.random.default_rng(seed)
    positives, negatives = {}, {}
    seen = sum(dense.values()) > 0
    for name in BEHAVIORS:
        positives[name] = torch.tensor(
            [rng.choice(np.flatnonzero(dense[name][u])) if dense[name][u].any() else -1 for u in users]
        )
        negatives[name] = torch.tensor(
            [rng.choice(np.flatnonzero(~seen[u])) if dense[name][u].any() else -1 for u in users]
        )
    return TripleBatch(torch.tensor(users), positives, negatives)


def oracle(model, dense, batch, variant):
    """Every term of the objective in float64, dense, one row at a time; returns (terms, tables)."""
    tables = [table.detach().double().requires_grad_() for table in model.tables]
    num_users, num_items = model.num_users, model.num_items
    pad = variant == "official"
    embedded = {}
    for name in BEHAVIORS:
        matrix = torch.zeros(num_users + pad, num_items + pad, dtype=torch.float64)
        matrix[:num_users, :num_items] = torch.from_numpy(dense[name])
        total = torch.cat([torch.cat([torch.zeros(len(matrix), len(matrix)), matrix], 1),
                           torch.cat([matrix.T, torch.zeros(matrix.shape[1], matrix.shape[1])], 1)])  # fmt: skip
        degree = total.sum(1)
        scale = torch.where(degree > 0, degree.clamp_min(1) ** -0.5, torch.zeros(()).double())
        total = scale[:, None] * total * scale[None, :]
        layer = torch.cat(tables)
        layers = [layer]
        for _ in range(model.options.num_layers):
            layer = total @ layer
            layer = torch.nn.functional.normalize(layer)
            layers.append(layer)
        combined = sum(layers)
        embedded[name] = (combined[: len(matrix)], combined[len(matrix) :])

    def rows(name):
        for user, positive, negative in zip(
            batch.users.tolist(), batch.positives[name].tolist(), batch.negatives[name].tolist(), strict=True
        ):
            if positive >= 0:
                yield user, positive, negative
            elif pad:
                yield num_users, num_items, num_items

    def loss(margin):
        return -torch.log(1e-10 + torch.sigmoid(margin)) if pad else torch.nn.functional.softplus(-margin)

    risks, propagated = {}, 0.0
    for name in BEHAVIORS:
        users, items = embedded[name]
        margins = [users[u] @ items[p] - users[u] @ items[n] for u, p, n in rows(name)]
        risks[name] = sum(loss(m) for m in margins) / len(margins)
        norms = sum(
            users[u].square().sum() + items[p].square().sum() + items[n].square().sum() for u, p, n in rows(name)
        )
        propagated = propagated + norms / 2 / len(margins)
    fused = [sum(embedded[name][side] for name in BEHAVIORS) / len(BEHAVIORS) for side in (0, 1)]
    margins = [fused[0][u] @ fused[1][p] - fused[0][u] @ fused[1][n] for u, p, n in rows(TARGET)]
    main = sum(loss(m) for m in margins) / len(margins)

    distinct = sorted({u for u, _, _ in rows(TARGET)})
    unit = {name: torch.nn.functional.normalize(embedded[name][0][distinct]) for name in BEHAVIORS}
    contrast = 0.0
    for name in ("view", "cart"):
        if variant == "paper":  # Eq. 3 and 4
            logits = unit[name] @ unit[name].T / 0.07
            for u in range(len(distinct)):
                others = torch.stack([logits[u, v] for v in range(len(distinct)) if v != u])
                positive = unit[name][u] @ unit[TARGET][u] / 0.07
                contrast = contrast + (torch.logsumexp(others, 0) - positive) / len(distinct) / 2
        else:
            logits = unit[TARGET] @ unit[name].T / 0.07
            labels = torch.arange(len(distinct))
            cross = torch.nn.functional.cross_entropy
            contrast = contrast + (cross(logits, labels) + cross(logits.T, labels)) / 2
    values = list(risks.values())
    mean = sum(values) / 3
    spread = sum((value - mean) ** 2 for value in values) / (3 if variant == "paper" else 2)
    size = 5e-4 * sum(t.square().sum() for t in tables) if variant == "paper" else 1e-3 * propagated
    return {"main": main, "infonce": contrast, "rex": spread, "l2": size}, tables


@pytest.mark.parametrize("variant", ["official", "mbgraph", "paper"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_every_term_and_gradient_equals_the_dense_oracle(variant, backend):
    graph, dense = random_graph()
    model = build(graph, variant=variant, embedding_dim=8, num_layers=2, rng=4, backend=backend)
    batch = draw_batch(dense, [0, 5, 2, 7, 13, 9, 3, 11])
    expected, tables = oracle(model, dense, batch, variant)
    outputs = model.step(batch, StepContext())
    made = dict(outputs.losses)
    made.update({entry.name: entry.weight * entry(outputs) for entry in model.options.regularizers()})
    assert made.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(made[name].double(), value.double(), rtol=2e-5, atol=1e-7)
        wanted = torch.autograd.grad(value, tables, retain_graph=True)
        got = torch.autograd.grad(made[name], model.tables, retain_graph=True)
        for mine, reference in zip(got, wanted, strict=True):
            tolerance = 2e-5 * float(reference.abs().max())
            assert_close(mine.double(), reference, rtol=0, atol=tolerance)


@pytest.mark.parametrize("variant", ["official", "mbgraph"])
def test_the_variance_of_gradients_is_the_same_on_both_paths(variant):
    """Deriving a derivative: the compiled pass writes itself down for it, the plain one is recorded anyway."""
    graph, dense = random_graph()
    batch = draw_batch(dense, [0, 5, 2, 7, 13, 9, 3, 11])
    found = []
    for backend in ("auto", "torch"):
        model = build(graph, variant=variant, embedding_dim=8, num_layers=2, rng=4, backend=backend)
        penalty = IRMv2(of="parameters")(model.step(batch, StepContext()))
        found.append((penalty, *torch.autograd.grad(penalty, model.tables)))
    for mine, reference in zip(*found, strict=True):
        assert float(reference.detach().abs().max()) > 0
        assert_close(mine, reference, rtol=0, atol=2e-5 * float(reference.detach().abs().max()))


def test_padded_rows_count_ln_two_in_the_official_variant_only():
    graph, dense = random_graph()
    users = [0, 1, 2, 3]  # none of them has a cart
    batch = draw_batch(dense, users)
    official = build(graph, variant="official", embedding_dim=8).step(batch, StepContext())
    assert official.risks["cart"].item() == pytest.approx(math.log(2), rel=1e-6)
    ours = build(graph, embedding_dim=8).step(batch, StepContext())
    assert "cart" not in ours.risks
    expected = torch.stack([ours.risks["view"], ours.risks["buy"]]).detach().var()
    assert REx()(ours).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_without_target_rows_has_zero_main_loss():
    graph, dense = random_graph()
    outputs = build(graph, embedding_dim=8).step(draw_batch(dense, [2, 13]), StepContext())
    assert outputs.losses["main"].item() == 0
    outputs.losses["main"].backward()


def test_a_batch_without_any_row_contributes_nothing():
    """A model that does not give an entry is an error, a batch that has none of it is a zero."""
    graph, dense = random_graph()
    model = build(graph, embedding_dim=8)
    outputs = model.step(draw_batch(dense, [13]), StepContext())  # a user without any edge
    assert outputs.risks == {}
    for regularizer in model.options.regularizers():
        assert regularizer(outputs).item() == 0, regularizer


def test_repeated_users_are_contrasted_once():
    graph, dense = random_graph()
    one, two = np.flatnonzero(dense[TARGET].any(1))[:2].tolist()
    outputs = build(graph, embedding_dim=8).step(draw_batch(dense, [one, one, two, one]), StepContext())
    assert len(outputs.anchors["user"][TARGET]) == 2


def test_supported_only_leaves_out_the_users_who_lack_the_behavior():
    """Users 0 to 3 have no cart; the model says so, and the contrast with carts is among the others."""
    graph, dense = random_graph()
    users = [0, 1, 3, 4, 5, 6, 7, 8]
    outputs = build(graph, embedding_dim=8, rng=2).step(draw_batch(dense, users), StepContext())
    anchored = [user for user in users if dense[TARGET][user].any()]
    weights, rows = outputs.anchor_weights["user"], outputs.anchors["user"]
    for name in BEHAVIORS:
        assert weights[name].tolist() == [float(dense[name][user].any()) for user in anchored], name
    normalize, cross = torch.nn.functional.normalize, torch.nn.functional.cross_entropy
    expected = 0.0
    for name in ("view", "cart"):
        chosen = weights[name] > 0
        logits = normalize(rows[TARGET][chosen]) @ normalize(rows[name][chosen]).T / 0.07
        labels = torch.arange(len(logits))
        expected += (cross(logits, labels) + cross(logits.T, labels)).item() / 2
    assert 2 < int((weights["cart"] > 0).sum()) < len(anchored)
    assert InfoNCE(supported_only=True)(outputs).item() == pytest.approx(expected, rel=1e-5)
    assert InfoNCE()(outputs).item() != pytest.approx(expected, rel=1e-3)


def test_encode_drops_padding_and_fuses_by_the_mean():
    graph, _ = random_graph()
    model = build(graph, variant="official", embedding_dim=8)
    encoded = model.encode()
    assert tuple(encoded.behaviors) == BEHAVIORS
    assert encoded.users.shape == (14, 8)
    assert encoded.items.shape == (11, 8)
    assert_close(encoded.users, torch.stack([users for users, _ in encoded.behaviors.values()]).mean(0))
    scores = model.scorer().scores(torch.arange(14))
    assert_close(scores, (encoded.users @ encoded.items.T).detach())


def test_the_scorer_reads_the_graph_it_is_given():
    graph, other = random_graph()[0], random_graph(seed=7)[0]
    model, twin = build(graph, embedding_dim=8, rng=1), build(other, embedding_dim=8, rng=1)
    rows = torch.arange(14)
    assert torch.equal(model.scorer(other).scores(rows), twin.scorer().scores(rows))
    assert not torch.equal(model.scorer(other).scores(rows), model.scorer().scores(rows))


def test_options_rebuild_the_model():
    graph, _ = random_graph()
    model = build(graph, variant="official", embedding_dim=8, num_layers=1, combine="mean")
    again = build_model("rmbrec", graph, TARGET, model.options.plain(), behaviors=BEHAVIORS)
    assert again.options == model.options
    assert (again.options.padding, again.options.gamma, again.options.combine) == (True, 1e-10, "mean")
    again.load_state_dict(model.state_dict())
    assert_close(again.encode().users, model.encode().users)


def test_the_variants_differ_in_options_training_and_terms():
    facts = {}
    for variant in RMBRec.variants():
        options = RMBRec.Options(variant=variant)
        training = options.training()
        names = [(entry.name, entry.weight) for entry in options.regularizers()]
        facts[variant] = (options.padding, options.gamma, training.weight_decay, training.history, names)
    ours = [("infonce", 1.0), ("rex", 1.0), ("l2", 1e-3)]
    assert facts == {
        "mbgraph": (False, 0.0, 1e-3, "all", ours),
        "official": (True, 1e-10, 1e-3, "all", ours),
        "paper": (False, 0.0, 0.0, "behavior", [("infonce", 1.0), ("rex", 1.0), ("l2", 5e-4)]),
    }
    assert not RMBRec.Options(variant="official", padding=False).padding  # what is said counts more than a preset


def test_errors():
    graph, _ = random_graph()
    with pytest.raises(UnknownNameError, match="variant of model 'rmbrec' 'offical'; did you mean 'official'"):
        RMBRec(graph, TARGET, variant="offical")
    with pytest.raises(UnknownNameError, match="option of model 'rmbrec' 'num_layer'; did you mean 'num_layers'"):
        build_model("rmbrec", graph, TARGET, {"num_layer": 2})
    with pytest.raises(UnknownNameError, match="unknown model 'rmbrek'; did you mean 'rmbrec'"):
        build_model("rmbrek", graph, TARGET)
    with pytest.raises(UnknownNameError, match="unknown target behavior 'by'"):
        RMBRec(graph, "by")
    with pytest.raises(UsageError, match=r"rmbrec needs an auxiliary behavior .*--model lightgcn"):
        RMBRec(graph, TARGET, behaviors=(TARGET,))
