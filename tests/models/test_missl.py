"""MISSL against loops in float64 over users, heads, intents and positions, written from the equations."""

import math

import numpy as np
import pytest
import torch

from mbgraph.data.interactions import Pairs
from mbgraph.errors import UsageError
from mbgraph.models import MISSL, SequenceBatches, Sequences, StepContext
from mbgraph.nn import Relations, softmax_among
from mbgraph.nn.hypergraph import joined_positions
from mbgraph.regularizers import L2
from mbgraph.testing import assert_matches
from mbgraph.testing.recommenders import toy_dataset

NEVER = -1e300


def softmax(values):
    return torch.softmax(torch.stack(values), 0)


def norm(layer, rows):
    centred = rows - rows.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias


def feed(layer, row, kind):
    hidden = (row @ layer.first.weight[kind] + layer.first_bias[kind]).clamp_min(0)
    return hidden @ layer.second.weight[kind] + layer.second_bias[kind]


def read(queries, keys, values, allowed, heads, keep=None):
    """Return what each query reads, head by head, and the first head's weights: lists of rows."""
    size = len(queries[0]) // heads
    made, first = [], []
    for number, query in enumerate(queries):
        parts = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = [
                query[part] @ key[part] / math.sqrt(size)
                if allowed(number, place)
                else torch.tensor(NEVER, dtype=torch.float64)
                for place, key in enumerate(keys)
            ]
            weights = softmax(scores)
            if head == 0:
                first.append(weights)
            if keep is not None:
                weights = weights * keep(number, weights)
            parts.append(sum(weight * value[part] for weight, value in zip(weights, values, strict=True)))
        made.append(torch.cat(parts))
    return made, first


def largest(weights, count):
    kept = torch.zeros_like(weights)
    kept[sorted(range(len(weights)), key=lambda place: -float(weights[place].detach()))[:count]] = 1
    return kept


def limit(count, length):
    if count < 6:
        return count
    return min(6 + int(6 * math.log(count / 6) / math.log(length / 6)), 11)


def intents_of(encoder, rows, types, kinds):
    """Return positions, intents, and which intents each position reads most, of one user: lists of rows."""
    size, length = encoder.intents, encoder.length
    group = [g for g in range(kinds + 1) for _ in range(size)]
    counts = [sum(kind == g for kind in types) for g in range(kinds)] + [sum(kind >= 0 for kind in types)]
    intents = list(encoder.prototypes)
    layers = [(rows, intents)]
    for _ in range(encoder.num_layers):
        got = []
        for shared in (False, True):
            mine = [k for k in range(len(intents)) if (group[k] == kinds) == shared]
            key, value = (encoder.key_all, encoder.value_all) if shared else (encoder.key, encoder.value)
            at = [0 if shared else max(kind, 0) for kind in types]
            got += read(
                [intents[k] @ encoder.ask.weight[group[k]] for k in mine],
                [row @ key.weight[kind] for row, kind in zip(rows, at, strict=True)],
                [row @ value.weight[kind] for row, kind in zip(rows, at, strict=True)],
                lambda k, t, mine=mine, shared=shared: types[t] >= 0 if shared else types[t] == group[mine[k]],
                encoder.heads,
                lambda k, weights, mine=mine: largest(weights, limit(counts[group[mine[k]]], length)),
            )[0]
        intents = [norm(encoder.norms[0], intent + new) for intent, new in zip(intents, got, strict=True)]
        fed = []
        for intent, g in zip(intents, group, strict=True):
            if encoder.shifted:
                fed.append(feed(encoder.feed_intents, intent, g - 1) if g else torch.zeros_like(intent))
            else:
                fed.append(feed(encoder.feed_intents, intent, g))
        intents = [norm(encoder.norms[1], intent + new) for intent, new in zip(intents, fed, strict=True)]
        for mix in encoder.mixes:
            intents = [
                (intents[k] + sum(mix[g, k % size, j] * intents[g * size + j] for j in range(size))).clamp_min(0)
                for k, g in enumerate(group)
            ]
        own_count = kinds * size

        def kept(_, weights, own_count=own_count):
            return torch.cat([largest(weights[:own_count], encoder.kept), largest(weights[own_count:], encoder.kept)])

        got, weights = read(
            [row @ encoder.query.weight[max(kind, 0)] for row, kind in zip(rows, types, strict=True)],
            [intent @ encoder.answer_key.weight[g] for intent, g in zip(intents, group, strict=True)],
            [intent @ encoder.answer_value.weight[g] for intent, g in zip(intents, group, strict=True)],
            lambda t, k: types[t] >= 0 and group[k] in (types[t], kinds),
            encoder.heads,
            kept,
        )
        own_of = [int(row[:own_count].argmax()) for row in weights]
        shared_of = [int(row[own_count:].argmax()) for row in weights]
        rows = [norm(encoder.norms[2], row + new) for row, new in zip(rows, got, strict=True)]
        rows = [
            norm(encoder.norms[3], row + feed(encoder.feed_positions, row, max(kind, 0)))
            for row, kind in zip(rows, types, strict=True)
        ]
        layers.append((rows, intents))
    mixed = []
    for side, weights in enumerate(encoder.layer_weights):
        mixed.append([])
        for place in range(len(layers[0][side])):
            versions = [layer[side][place] for layer in layers]
            share = softmax([version @ weight for version, weight in zip(versions, weights, strict=True)])
            mixed[side].append(sum(s * version for s, version in zip(share, versions, strict=True)))
    return (*mixed, own_of, shared_of)


def streams_of(model, items, types):
    """Return both streams, what the hypergraph read, and intents, of one user."""
    kinds, heads, length = len(model.behaviors), model.options.heads, len(items)
    item = [model.item_embedding[i] if i >= 0 else torch.zeros_like(model.item_embedding[0]) for i in items]
    kind = [model.behavior_embedding[b] if b >= 0 else torch.zeros_like(item[0]) for b in types]
    place = list(model.position_embedding)
    inputs = [a + b + c for a, b, c in zip(item, kind, place, strict=True)]
    found = intents_of(model.intent_encoder, inputs, types, kinds)
    share = model.options.mixed
    one = [
        (1 - share) * (a + c + model.segment_embedding[0]) + share * h
        for a, c, h in zip(item, place, found[0], strict=True)
    ]
    two = [b + c + model.segment_embedding[1] for b, c in zip(kind, place, strict=True)]
    at = [max(b, 0) for b in types]
    for layer in model.layers:
        projected = {
            (name, s): [row @ getattr(layer, name)[s].weight[b] for row, b in zip(rows, at, strict=True)]
            for s, rows in enumerate((one, two))
            for name in ("queries", "keys", "values")
        }
        after = []
        for s, rows in enumerate((one, two)):
            got, _ = read(
                projected["queries", 1 - s], projected["keys", s], projected["values", s],
                lambda t, m: m <= t and types[m] >= 0, heads,
            )  # fmt: skip
            rows = [norm(layer.norms[s], row + new) for row, new in zip(rows, got, strict=True)]
            after.append(
                [norm(layer.norms[2 + s], row + feed(layer.feed[s], row, b)) for row, b in zip(rows, at, strict=True)]
            )
        one, two = after
    assert len(one) == length
    return one, two, inputs, found


def head(layer, row):
    return norm(layer[2], (layer[0].weight @ row + layer[0].bias).clamp_min(0))


def cosine(one, two):
    return one @ two / one.norm() / two.norm()


def cross_entropy(logits, number):
    return torch.logsumexp(torch.stack(logits), 0) - logits[number]


def mean(values):
    return torch.stack(values).mean()


def expected_losses(model, batch, users):
    """Return the five terms, unweighted."""
    options, size, kinds = model.options, model.options.intents, len(model.behaviors)
    length, temperature = options.length, options.temperature
    next_item, next_kind, pairs = [], [], []
    for place, item, kind in zip(
        *(part.tolist() for part in (batch.positions, batch.next_items, batch.next_types)), strict=True
    ):
        one, two, _, _ = users[place // length]
        z = head(model.heads[0], one[place % length])
        next_item.append(
            cross_entropy([z @ e + b for e, b in zip(model.item_embedding, model.item_bias, strict=True)], item)
        )
        z = head(model.heads[1], two[place % length])
        next_kind.append(
            cross_entropy([z @ e + b for e, b in zip(model.behavior_embedding, model.behavior_bias, strict=True)], kind)
        )
    for place in batch.sampled.tolist():
        pairs.append((users[place // length][0][place % length], users[place // length][1][place % length]))
    rows = [one for one, _ in pairs] + [two for _, two in pairs]
    count = len(pairs)
    between = mean(
        [
            cross_entropy(
                [cosine(row, other) / temperature for k, other in enumerate(rows) if k != n],
                [k for k in range(2 * count) if k != n].index((n + count) % (2 * count)),
            )
            for n, row in enumerate(rows)
        ]
    )
    inter = {"own": [], "shared": [], "own back": [], "shared back": []}
    intra = {"own": [], "shared": []}
    for (_, _, inputs, (_, intents, own_of, shared_of)), types in zip(users, batch.types.tolist(), strict=True):
        own, shared = intents[: kinds * size], intents[kinds * size :]
        there = [t for t, kind in enumerate(types) if kind >= 0]

        def similar(one, two):
            return cosine(one, two) / temperature

        for t in there:
            among = [
                similar(inputs[t], inputs[s]) for s in there if own_of[s] != own_of[t] and shared_of[s] != shared_of[t]
            ]
            group = own[types[t] * size : (types[t] + 1) * size]
            label = own_of[t] % (kinds if options.labels == "behavior" else size)
            inter["own"].append(cross_entropy([similar(inputs[t], row) for row in group] + among, label))
            inter["shared"].append(cross_entropy([similar(inputs[t], row) for row in shared] + among, shared_of[t]))
        for name, kind, of in (("own back", own, own_of), ("shared back", shared, shared_of)):
            for k, row in enumerate(kind):
                logits = [similar(row, inputs[t]) for t in there]
                logits += [similar(row, other) for j, other in enumerate(kind) if j != k]
                members = [n for n, t in enumerate(there) if of[t] == k]
                inter[name].append(sum((cross_entropy(logits, n) for n in members), torch.zeros(()).double()))
        joined = {(own_of[t], shared_of[t]) for t in there}
        for name, kind, other, turn in (("own", own, shared, False), ("shared", shared, own, True)):
            for k, row in enumerate(kind):
                logits = [similar(row, x) for x in other] + [similar(row, x) for j, x in enumerate(kind) if j != k]
                wanted = [j for j in range(len(other)) if ((j, k) if turn else (k, j)) in joined]
                intra[name].append(sum((cross_entropy(logits, j) for j in wanted), torch.zeros(()).double()))
    return {
        "main": mean(next_item),
        "next-behavior": mean(next_kind),
        "streams": between,
        "inter": sum(map(mean, inter.values())),
        "intra": sum(map(mean, intra.values())),
    }


@pytest.mark.parametrize("variant", ["mbgraph", "official"])
def test_values_and_gradients_are_those_of_the_equations(variant):
    ds = toy_dataset(("view", "buy"))
    model = MISSL(
        ds.graph, ds.target, behaviors=ds.behaviors, variant=variant, rng=3, embedding_dim=4, length=8, intents=3,
        heads=2, num_layers=1, intent_layers=2, mixed=0.3, dropout=0.0, temperature=0.7, kept=0.67,
    ).double()  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # far from the initialisation, where everything is nearly alike
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    training = model.options.training().replace(batch_size=3)
    batch = list(model.batches(ds, training, 2).epoch(1))[2]
    assert (batch.types < 0).any()
    assert (batch.types >= 0).sum() > 12
    losses = model.step(batch, StepContext()).losses
    users = [
        streams_of(model, items, types) for items, types in zip(batch.items.tolist(), batch.types.tolist(), strict=True)
    ]
    expected = expected_losses(model, batch, users)
    weights = {"main": 1.0, "next-behavior": 1.0, "streams": 0.05, "inter": 0.05, "intra": 0.05}
    assert list(losses) == list(expected)
    parameters = dict(model.named_parameters())
    for name, value in expected.items():
        assert_matches(losses[name], weights[name] * value.detach(), 1e-9)
        options = {"retain_graph": True, "allow_unused": True}
        mine = torch.autograd.grad(losses[name], list(parameters.values()), **options)
        wanted = torch.autograd.grad(weights[name] * value, list(parameters.values()), **options)
        for parameter, one, two in zip(parameters, mine, wanted, strict=True):
            size = 0.0 if two is None else float(two.abs().max())
            if size < 1e-12:
                assert one is None or float(one.abs().max()) < 1e-12, (name, parameter)
            else:
                assert_matches(one, two, 1e-8)


def test_scores_are_the_head_s_at_the_last_position():
    ds = toy_dataset(("view", "buy"))
    model = MISSL(ds.graph, ds.target, behaviors=ds.behaviors, embedding_dim=4, length=5, intents=2, mixed=0.5)
    with torch.no_grad():
        model.item_bias.normal_(generator=torch.Generator().manual_seed(1))
    user = 9
    pairs = [(name, item) for name in ds.behaviors for item in ds.edges[name].item[ds.edges[name].user == user]]
    items, kinds = [int(item) for _, item in pairs[-5:]], [ds.behaviors.index(name) for name, _ in pairs[-5:]]
    with torch.no_grad():
        z = head(model.heads[0], streams_of(model.double(), items, kinds)[0][-1])
        expected = model.item_embedding @ z + model.item_bias
    assert_matches(model.scorer().scores(torch.tensor([user]))[0], expected, 1e-6)


def relations(times):
    pairs = {
        "view": Pairs([0, 0, 1, 0], [3, 1, 2, 0], np.array([5, 30, 7, 10]) if times else None),
        "buy": Pairs([0, 1, 0], [2, 2, 3], np.array([10, 1, 40]) if times else None),
    }
    graph = toy_dataset(("view", "buy")).replace(edges=pairs, splits={}).graph
    return Relations.of(graph, ("view", "buy"), "buy")


@pytest.mark.parametrize(
    ("times", "order", "expected"),
    [
        (True, "auto", [(3, 0), (0, 0), (2, 1), (1, 0), (3, 1)]),  # at 10 the view comes before the buy
        (True, "behaviors", [(3, 0), (1, 0), (0, 0), (2, 1), (3, 1)]),
        (False, "auto", [(3, 0), (1, 0), (0, 0), (2, 1), (3, 1)]),
    ],
)
def test_sequences_follow_times_or_behaviors(times, order, expected):
    sequences = Sequences(relations(times), order)
    assert sequences.timed == (times and order == "auto")
    own = slice(*sequences.pointers[:2])
    assert list(zip(sequences.items[own].tolist(), sequences.types[own].tolist(), strict=True)) == expected
    items, types = sequences.windows(np.array([0, 5]), np.array([4, 0]), 6)
    assert items.tolist() == [[-1, -1, *[item for item, _ in expected[:4]]], [-1] * 6]
    assert types[0].tolist() == [-1, -1, *[kind for _, kind in expected[:4]]]


def test_order_by_time_needs_times():
    with pytest.raises(UsageError, match="needs a time of every pair, and view, buy of this dataset has none"):
        Sequences(relations(False), "time")


def test_batches_predict_what_follows():
    ds = toy_dataset()
    sequences = Sequences(Relations.of(ds.graph, ds.behaviors, ds.target))
    training = MISSL.Options().training().replace(batch_size=5)
    batches = SequenceBatches(sequences, training, length=4, predicted=0.5, rng=1)
    bounds = list(zip(sequences.pointers, sequences.pointers[1:], strict=False))
    pairs = list(zip(sequences.items.tolist(), sequences.types.tolist(), strict=True))
    whole = [pairs[start:end] for start, end in bounds]
    rows, earlier, predicted, positions = 0, 0, 0, 0
    for batch in (batch for epoch in (1, 2, 3) for batch in batches.epoch(epoch)):
        after = zip(batch.next_items.tolist(), batch.next_types.tolist(), strict=True)
        following = dict(zip(batch.positions.tolist(), after, strict=True))
        for row, (items, types) in enumerate(zip(batch.items.tolist(), batch.types.tolist(), strict=True)):
            window = [pair for pair in zip(items, types, strict=True) if pair != (-1, -1)]
            assert items[: 4 - len(window)] == [-1] * (4 - len(window))
            places = [
                (sequence, start)
                for sequence in whole
                for start in range(len(sequence) - len(window) if len(window) == 4 else min(len(sequence), 1))
                if [*sequence[start : start + len(window)]] == window and len(window) < len(sequence)
            ]
            sequence, start = next(
                (sequence, start)
                for sequence, start in places
                if all(
                    sequence[start + place % 4 - 4 + len(window) + 1] == pair
                    for place, pair in following.items()
                    if place // 4 == row
                )
            )
            rows += 1
            positions += len(window)
            earlier += start + len(window) + 1 < len(sequence)
        predicted += len(following)
        assert set(batch.sampled.tolist()) <= set(following)
        assert (batch.sampled // 4).tolist() == sorted({place // 4 for place in following})
    assert rows == 3 * len(batches.users)
    assert 0 < earlier < rows / 2
    assert 0.35 < predicted / positions < 0.65
    with pytest.raises(UsageError, match="knows no sampler 'per-edge'; leave sampler out"):
        SequenceBatches(sequences, training.replace(sampler="per-edge"), length=4, predicted=0.5)


def test_how_many_positions_an_intent_joins():
    counts = torch.arange(60)
    assert joined_positions(counts, 50).tolist() == [limit(int(count), 50) for count in counts]
    assert joined_positions(torch.tensor([5, 6, 9]), 6).tolist()[:2] == [5, 6]


@pytest.mark.parametrize("block", [2, 100])
def test_softmax_among_all_rows(block):
    generator = torch.Generator().manual_seed(0)
    rows, table, bias = (torch.randn(*shape, generator=generator).requires_grad_() for shape in ((5, 3), (7, 3), (7,)))
    numbers = torch.tensor([6, 0, 0, 2, 3])
    expected = torch.nn.functional.cross_entropy(rows @ table.T + bias, numbers, reduction="none")
    made = softmax_among(rows, table, numbers, bias, block=block)
    assert torch.allclose(made, expected, atol=1e-6)
    for one, two in zip(
        *(torch.autograd.grad(loss.sum(), (rows, table, bias)) for loss in (made, expected)), strict=True
    ):
        assert torch.allclose(one, two, atol=1e-6)


def test_a_step_gives_regularizers_their_entries():
    ds = toy_dataset()
    model = MISSL(ds.graph, ds.target, embedding_dim=8, intents=4, length=6, rng=1)
    model.prepare(ds)
    context = StepContext(1, 0, 3)
    training = model.options.training().replace(batch_size=9)
    batch = next(iter(model.batches(ds, training, 3).epoch(1)))
    outputs = model.step(batch, context)
    assert outputs.risks.keys() == {"buy"}
    assert torch.equal(outputs.risks["buy"], outputs.losses["main"])
    assert outputs.tables[0] is model.item_embedding
    norms = L2(on="tables")(outputs), L2(on="parameters")(outputs)
    squares = {name: float(entry.detach().square().sum()) for name, entry in model.named_parameters()}
    assert norms[0].item() == pytest.approx(squares["item_embedding"], rel=1e-5)
    assert norms[1].item() == pytest.approx(sum(squares.values()) - squares["item_embedding"], rel=1e-5)
    assert not model.step(batch.emptied(), context).risks


def test_wrong_options_are_one_line():
    ds = toy_dataset()
    with pytest.raises(UsageError, match="embedding_dim 9 of model 'missl' is no multiple of its 2 heads"):
        MISSL(ds.graph, ds.target, embedding_dim=9)
    alone = toy_dataset(("buy",))
    with pytest.raises(UsageError, match="use --model lightgcn"):
        MISSL(alone.graph, alone.target)
