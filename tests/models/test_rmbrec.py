"""RMBRec: a dense oracle written from the equations, and the arrays the published code produced."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mbgraph._dgl import import_dgl
from mbgraph.errors import UnknownNameError
from mbgraph.models import Batch, RMBRec, build_model
from mbgraph.regularizers import L2, InfoNCE, IRMv1, IRMv2, REx

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
    return Batch(torch.tensor(users), positives, negatives)


def oracle(model, dense, batch, variant):
    """Every term of the objective in float64, dense, one row at a time; returns (terms, tables)."""
    tables = [
        t.detach().double().requires_grad_() for t in (model.encoder.user_embedding, model.encoder.item_embedding)
    ]
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
        for _ in range(model.num_layers):
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
@pytest.mark.parametrize("double_backward", [False, True])
def test_every_term_and_gradient_equals_the_dense_oracle(variant, double_backward):
    graph, dense = random_graph()
    model = RMBRec(graph, TARGET, variant=variant, embedding_dim=6, num_layers=2, rng=3)
    batch = draw_batch(dense, [0, 5, 2, 7, 13, 9, 3, 11])
    expected, tables = oracle(model, dense, batch, variant)
    outputs = model.step(batch, double_backward=double_backward)
    made = dict(outputs.losses)
    made.update({entry.name: entry.weight * entry(outputs) for entry in model.default_regularizers()})
    assert made.keys() == expected.keys()
    parameters = [model.encoder.user_embedding, model.encoder.item_embedding]
    for name, value in expected.items():
        assert_close(made[name].double(), value.double(), rtol=2e-5, atol=1e-7)
        wanted = torch.autograd.grad(value, tables, retain_graph=True)
        got = torch.autograd.grad(made[name], parameters, retain_graph=True)
        for mine, reference in zip(got, wanted, strict=True):
            tolerance = 2e-5 * float(reference.abs().max())
            assert_close(mine.double(), reference, rtol=0, atol=tolerance)


def test_padded_rows_count_ln_two_in_the_official_variant_only():
    graph, dense = random_graph()
    users = [0, 1, 2, 3]  # none of them has a cart
    batch = draw_batch(dense, users)
    official = RMBRec(graph, TARGET, variant="official", embedding_dim=4).step(batch)
    assert official.risks["cart"].item() == pytest.approx(math.log(2), rel=1e-6)
    ours = RMBRec(graph, TARGET, embedding_dim=4).step(batch)
    assert "cart" not in ours.risks
    expected = torch.stack([ours.risks["view"], ours.risks["buy"]]).detach().var()
    assert REx()(ours).item() == pytest.approx(expected.item(), rel=1e-5)


def test_batch_without_target_rows_has_zero_main_loss():
    graph, dense = random_graph()
    outputs = RMBRec(graph, TARGET, embedding_dim=4).step(draw_batch(dense, [2, 13]))
    assert outputs.losses["main"].item() == 0
    outputs.losses["main"].backward()


def test_repeated_users_are_contrasted_once():
    graph, dense = random_graph()
    one, two = np.flatnonzero(dense[TARGET].any(1))[:2].tolist()
    outputs = RMBRec(graph, TARGET, embedding_dim=4).step(draw_batch(dense, [one, one, two, one]))
    assert len(outputs.users[TARGET]) == 2


def test_encode_drops_padding_and_fuses_by_the_mean():
    graph, _ = random_graph()
    model = RMBRec(graph, TARGET, variant="official", embedding_dim=4)
    encoded = model.encode()
    assert encoded.users.shape == (14, 4)
    assert encoded.items.shape == (11, 4)
    assert_close(encoded.users, torch.stack([users for users, _ in encoded.behaviors.values()]).mean(0))
    scores = model.scorer().scores(torch.arange(14))
    assert_close(scores, (encoded.users @ encoded.items.T).detach())


def test_options_rebuild_the_model():
    graph, _ = random_graph()
    model = RMBRec(graph, TARGET, variant="official", embedding_dim=4, num_layers=1, combine="mean")
    again = build_model("rmbrec", graph, TARGET, model.options())
    assert again.options() == model.options()
    again.load_state_dict(model.state_dict())
    assert_close(again.encode().users, model.encode().users)


def test_errors():
    graph, _ = random_graph()
    with pytest.raises(UnknownNameError, match="unknown variant of rmbrec 'offical'; did you mean 'official'"):
        RMBRec(graph, TARGET, variant="offical")
    with pytest.raises(UnknownNameError, match="option of model 'rmbrec' 'num_layer'; did you mean 'num_layers'"):
        build_model("rmbrec", graph, TARGET, {"num_layer": 2})
    with pytest.raises(UnknownNameError, match="unknown model 'rmbrek'; did you mean 'rmbrec'"):
        build_model("rmbrek", graph, TARGET)
    with pytest.raises(UnknownNameError, match="unknown target behavior 'by'"):
        RMBRec(graph, "by")


# --- the arrays of the published code -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden_arrays(golden):
    return dict(np.load(golden / "rmbrec" / "A.npz", allow_pickle=False))


@pytest.fixture(scope="module")
def golden_model(golden_arrays):
    z = golden_arrays
    edges = {("user", name, "item"): tuple(torch.from_numpy(z[f"edges_{name}"]).T) for name in BEHAVIORS}
    counts = {"user": int(z["n_users"]), "item": int(z["n_items"])}
    graph = import_dgl().heterograph(edges, num_nodes_dict=counts)
    model = RMBRec(
        graph, TARGET, variant="official", embedding_dim=int(z["dim"]), num_layers=len(z["user_layers_buy"]) - 1
    )
    with torch.no_grad():
        for side, table in (("user", model.encoder.user_embedding), ("item", model.encoder.item_embedding)):
            rows = np.vstack([z[f"param_{side}_embedding"], z[f"param_{side}_padding"]])
            table.copy_(torch.from_numpy(rows))
    return model


def same(mine, reference, tolerance=1e-5):
    """Within ``tolerance`` of the array's largest magnitude."""
    mine = np.asarray(mine.detach() if torch.is_tensor(mine) else mine)
    assert np.abs(mine - reference).max() <= tolerance * np.abs(reference).max()


def golden_batch(z, kind):
    rows = z[f"batch_{kind}"]  # (rows, behavior, (user, positive, negative)), -1 for padded
    users = rows[:, :, 0].max(1)
    users = np.where(users < 0, z["isolated_user"], users)  # a user without any edge is padded everywhere
    column = {name: number for number, name in enumerate(BEHAVIORS)}
    return Batch(
        torch.from_numpy(users),
        {name: torch.from_numpy(rows[:, c, 1]) for name, c in column.items()},
        {name: torch.from_numpy(rows[:, c, 2]) for name, c in column.items()},
    )


def test_golden_embeddings_and_scores(golden_arrays, golden_model):
    encoded = golden_model.encode()
    for name in BEHAVIORS:
        same(encoded.behaviors[name][0], golden_arrays[f"user_emb_{name}"])
        same(encoded.behaviors[name][1], golden_arrays[f"item_emb_{name}"])
    same(encoded.users, golden_arrays["user_emb_final"])
    same(encoded.items, golden_arrays["item_emb_final"])
    same(golden_model.scorer().scores(torch.arange(golden_model.num_users)), golden_arrays["score_matrix"])


@pytest.mark.parametrize("kind", ["pad", "nopad"])
@pytest.mark.parametrize("mode", ["rex", "v1", "v2"])
@pytest.mark.parametrize("fast", [True, False])
def test_golden_terms_and_gradients(golden_arrays, golden_model, kind, mode, fast):
    z, model = golden_arrays, golden_model
    penalty = {"rex": REx(), "v1": IRMv1(scale_on="loss"), "v2": IRMv2(of="parameters")}[mode]
    if penalty.double_backward and fast:
        pytest.skip("the variance of gradients needs the pass that derives twice")
    outputs = model.step(golden_batch(z, kind), double_backward=not fast)
    same(torch.stack([outputs.risks[name] for name in BEHAVIORS]), z[f"loss_bpr_per_behavior__{kind}"])
    terms = {
        f"main__{kind}": outputs.losses["main"],
        f"cl_user__{kind}": InfoNCE()(outputs),
        f"reg__{kind}": L2(on="propagated")(outputs),
        f"irm__{mode}_{kind}": penalty(outputs),
    }
    weights = (1.0, float(z["hp_lambda_cl"]), float(z["hp_reg_coeff"]), float(z["hp_penalty_irm_coeff"]))
    terms[f"total__{mode}_{kind}"] = sum(w * t for w, t in zip(weights, terms.values(), strict=True))
    tables = [model.encoder.user_embedding, model.encoder.item_embedding]
    for name, value in terms.items():
        same(value, z[f"loss_{name}"])
        gradients = torch.autograd.grad(value, tables, retain_graph=True)
        for side, gradient in zip(("user", "item"), gradients, strict=True):
            same(gradient[:-1], z[f"grad_{side}__{name}"])
    # The padding item's gradient is its L2 part alone: the two halves of each padded margin cancel, and what is left of
    # them is rounding of the reference itself (its rex and v1 values already differ by 4e-6 of the largest entry).
    for side, gradient in zip(("user", "item"), gradients, strict=True):
        reference = z.get(f"grad_{side}_padding__total__{mode}_{kind}")
        if reference is not None and np.abs(reference).max() > 0:
            same(gradient[-1], reference, tolerance=3e-5)


@pytest.mark.parametrize("kind", ["pad", "nopad"])
@pytest.mark.parametrize("mode", ["rex", "v1", "v2"])
def test_golden_first_adam_step(golden_arrays, golden_model, kind, mode):
    z = golden_arrays
    model = build_model("rmbrec", _graph_of(golden_model), TARGET, golden_model.options())
    model.load_state_dict(golden_model.state_dict())
    penalty = {"rex": REx(), "v1": IRMv1(scale_on="loss"), "v2": IRMv2(of="parameters")}[mode]
    outputs = model.step(golden_batch(z, kind), double_backward=penalty.double_backward)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-3)
    (outputs.losses["main"] + InfoNCE()(outputs) + penalty(outputs) + 1e-3 * L2()(outputs)).backward()
    optimizer.step()
    same(model.encoder.user_embedding[:-1], z[f"after_adam_step_user__{mode}_{kind}"])
    same(model.encoder.item_embedding[:-1], z[f"after_adam_step_item__{mode}_{kind}"])


def _graph_of(model):
    edges = {("user", name, "item"): relation.graph.edges() for name, relation in model.encoder.relations.items()}
    counts = {"user": model.num_users, "item": model.num_items}
    return import_dgl().heterograph(edges, num_nodes_dict=counts)
