"""S-MBRec against a dense computation in float64, written from the equations."""

import math

import pytest
import torch

from mbgraph.errors import UsageError
from mbgraph.models import SMBRec, StepContext
from mbgraph.nn import sampled_softmax
from mbgraph.regularizers.infonce import infonce
from mbgraph.testing import assert_matches
from mbgraph.testing.recommenders import toy_dataset


def dense(model, ds):
    """Return the behaviors' embeddings by whole matrices: K x ((U, D), (I, D))."""
    made = []
    for name in ds.behaviors:
        adjacency = torch.zeros(ds.num_users, ds.num_items, dtype=torch.float64)
        adjacency[torch.from_numpy(ds.edges[name].user), torch.from_numpy(ds.edges[name].item)] = 1
        of_users, of_items = adjacency.sum(1), adjacency.sum(0)
        scaled = adjacency / (of_users[:, None] * of_items).sqrt().clamp_min(1e-9)
        layers = [model.tables]
        for _ in range(model.options.num_layers):
            users, items = layers[-1]
            layers.append((scaled @ items, scaled.T @ users))
        made.append(tuple(sum(side) / len(layers) for side in zip(*layers, strict=True)))
    return made


def shares(ds, decimals):
    counts = torch.stack([torch.from_numpy(ds.csr(name).degrees()) for name in ds.behaviors], 1).double()
    made = counts / counts.sum(1, keepdim=True).clamp_min(1)
    return torch.tensor([[round(value, decimals) for value in row] for row in made.tolist()], dtype=torch.float64)


def project(layer, rows):
    """Apply a projection by its numbers: matrices, biases and PReLU one after the other."""
    for part in layer if isinstance(layer, torch.nn.Sequential) else [layer]:
        if isinstance(part, torch.nn.PReLU):
            rows = torch.where(rows > 0, rows, part.weight * rows)
        else:
            rows = rows @ part.weight.T + (0 if part.bias is None else part.bias)
    return rows


def contrast(one, two, temperature):
    one, two = (rows / rows.norm(dim=1, keepdim=True) for rows in (one, two))
    similar = (one @ two.T / temperature).exp()
    own = similar.diagonal()
    return (-(own / similar.sum(1)).log().mean() - (own / similar.sum(0)).log().mean()) / 2


@pytest.mark.parametrize("variant", ["mbgraph", "official"])
def test_values_and_gradients_are_those_of_the_equations(variant):
    ds = toy_dataset()
    options = {"variant": variant, "embedding_dim": 6, "num_layers": 2, "user_temperatures": (0.9, 0.4)}
    model = SMBRec(ds.graph, ds.target, behaviors=ds.behaviors, rng=2, **options).double()
    with torch.no_grad():
        model.behavior_weight.copy_(torch.tensor([0.7, -1.3, 2.1]))
    training = model.options.training().replace(batch_size=11, negatives=3)
    batch = next(iter(model.batches(ds, training, 1).epoch(1)))
    outputs = model.step(batch, StepContext())
    mine = {entry.term: entry.weight * entry(outputs) for entry in model.options.regularizers()} | outputs.losses
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(sum(mine.values()), list(parameters.values()))

    pairs = dense(model, ds)
    official = variant == "official"
    attention = torch.softmax(model.behavior_weight * shares(ds, 2 if official else 16), 1)
    fused = project(model.of_users, sum(attention[:, k, None] * users for k, (users, _) in enumerate(pairs)))
    joined = torch.cat([items for _, items in pairs], 1)
    of_items = project(model.of_items, joined)
    of_negatives = project(model.of_negatives, joined) if official else of_items
    users, positives, negatives = batch.users, batch.positives["buy"], batch.negatives["buy"]
    assert negatives.shape == (11, 3)
    assert len(users.unique()) < len(users)  # rows and nodes differ
    margins = (fused[users][:, None] * of_negatives[negatives]).sum(-1) - (fused[users] * of_items[positives]).sum(
        -1, True
    )
    anchored = (users, positives) if official else (users.unique(), positives.unique())
    temperatures = ((0.9, 0.4), (0.2, 0.2))
    expected = {
        "main": (1 + margins.exp().sum(1)).log().mean(),
        **{
            name: 0.2 * sum(
                contrast(pairs[-1][side][anchored[side]], pairs[k][side][anchored[side]], temperatures[side][k])
                for k in range(2)
            )
            for side, name in enumerate(("users", "items"))
        },
        "l2": 1e-4 / 22 * sum(
            table[rows].square().sum()
            for table, rows in zip((*model.tables, model.item_embedding), (users, positives, negatives), strict=True)
        ),
    }  # fmt: skip
    assert set(mine) == set(expected)
    for name, value in expected.items():
        assert_matches(mine[name], value.detach(), 1e-12)
    wanted = torch.autograd.grad(sum(expected.values()), list(parameters.values()))
    for name, one, two in zip(parameters, gradients, wanted, strict=True):
        assert bool(two.any()), name
        assert_matches(one, two, 1e-10)
    scores = sum(users @ items.T for users, items in pairs) if official else fused @ of_items.T
    assert_matches(model.scorer().scores(torch.arange(ds.num_users)), scores.detach(), 1e-12)


def test_the_loss_does_not_overflow():
    margin = torch.tensor([[-1000.0, 5.0], [1000.0, 1000.0], [0.0, 0.0]], requires_grad=True)
    made = sampled_softmax(margin)
    assert made.tolist() == pytest.approx([1000.0, 0.0, math.log(3)])
    made.sum().backward()
    assert torch.isfinite(margin.grad).all()
    assert sampled_softmax(margin[:, 0]).tolist() == pytest.approx(torch.nn.functional.softplus(-margin[:, 0]).tolist())


@pytest.mark.parametrize(("variant", "expected"), [("mbgraph", (0.2,) * 3), ("official", (1.0, 0.5, 0.5))])
def test_temperatures_of_any_number_of_behaviors(variant, expected):
    ds = toy_dataset(("view", "collect", "cart", "buy"))
    model = SMBRec(ds.graph, ds.target, behaviors=ds.behaviors, variant=variant, embedding_dim=4)
    outputs = model.step(next(iter(model.batches(ds, model.options.training(), 1).epoch(1))), StepContext())
    anchors = outputs.anchors["user"]
    users = model.options.regularizers()[0](outputs)
    wanted = sum(
        infonce(anchors["buy"], anchors[name], temperature=temperature)
        for name, temperature in zip(("view", "collect", "cart"), expected, strict=True)
    )
    assert_matches(users, wanted.detach(), 1e-6)


def test_temperatures_are_at_most_one_per_auxiliary_behavior():
    ds = toy_dataset(("view", "buy"))
    model = SMBRec(ds.graph, ds.target, embedding_dim=4, user_temperatures=(1.0, 0.5))
    outputs = model.step(next(iter(model.batches(ds, model.options.training(), 1).epoch(1))), StepContext())
    with pytest.raises(UsageError, match="has 2 numbers for 1 auxiliary behaviors; give at most one for each of view"):
        model.options.regularizers()[0](outputs)


def test_the_published_training():
    options = SMBRec.Options(variant="official")
    training = options.training()
    assert (training.batch_size, training.lr, training.negatives) == (4096, 1e-4, 5)
    assert (training.sampler, training.history, options.embedding_dim) == ("per-edge", "target", 256)
    alone = toy_dataset(("buy",))
    with pytest.raises(UsageError, match="use --model lightgcn"):
        SMBRec(alone.graph, alone.target)


@pytest.mark.parametrize("variant", ["mbgraph", "official"])
def test_a_node_is_projected_once_however_often_it_stands_in_a_batch(variant):
    ds = toy_dataset()
    model = SMBRec(ds.graph, ds.target, variant=variant, embedding_dim=4)
    batch = next(iter(model.batches(ds, model.options.training().replace(batch_size=40), 1).epoch(1)))
    seen = []
    for module in (model.of_users, model.of_items, model.of_negatives):
        if module is not None:
            module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    model.step(batch, StepContext())
    rows = batch.rows("buy")
    assert sorted(seen) == sorted(len(part.unique()) for part in rows)
    assert rows[2].numel() > len(rows[2].unique())
