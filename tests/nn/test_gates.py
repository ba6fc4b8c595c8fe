"""A gate and attention between behaviors row by row, and layers that stand still."""

import torch
from torch.testing import assert_close

from mbgraph.nn import Relation, TwoPasses, behavior_attention, context_gate, propagate
from mbgraph.nn.historical import historical, on_historical


def test_a_gate_is_a_recurrent_unit_without_carry():
    generator = torch.Generator().manual_seed(0)
    users, items, contexts, gates, candidate = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((4, 1, 3), (4, 2, 3), (5,), (6, 11), (3, 11))
    )
    made = context_gate(users, items, contexts, gates, candidate)
    assert made.shape == (4, 2, 3)
    for row in range(4):
        for column in range(2):
            user, item = users[row, 0], items[row, column]
            both = torch.sigmoid(gates @ torch.cat([user, item, contexts]))
            expected = both[3:] * torch.tanh(candidate @ torch.cat([both[:3] * user, item, contexts]))
            assert_close(made[row, column], expected)


def test_behaviors_attend_to_each_other():
    generator = torch.Generator().manual_seed(1)
    messages, hidden, output = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((4, 3, 2), (3, 2, 5), (3, 5, 1))
    )
    mixed, attention = behavior_attention(messages, hidden, output)
    for node in range(4):
        for to in range(3):
            scores = torch.stack([torch.tanh(row @ hidden[to]) @ output[to, :, 0] for row in messages[node]])
            share = torch.softmax(scores, 0)
            assert_close(attention[node, to], share)
            assert_close(mixed[node, to], sum(s * row for s, row in zip(share, messages[node], strict=True)))


def test_historical_layers_stand_still_while_the_first_moves():
    relation = Relation([0, 1, 1], [0, 0, 1], 2, 2)
    weights = (2.0, 1.0, 0.5)
    start = (torch.tensor([[1.0], [2.0]], requires_grad=True), torch.tensor([[3.0], [4.0]], requires_grad=True))
    whole = propagate(relation, *start, 2, weights=weights)
    above = historical(whole, start, 2.0)
    assert not above[0].requires_grad
    assert_close(on_historical(start, above, 2.0), whole)
    moved = (start[0] + 1, start[1] - 3)
    made = on_historical(moved, above, 2.0)
    assert_close(made, (whole[0] + 2, whole[1] - 6))
    assert torch.autograd.grad(made[0].sum(), start[0])[0].tolist() == [[2.0], [2.0]]


def test_two_passes_at_rows_are_those_of_the_whole():
    one, two = Relation([0, 1, 1], [0, 0, 1], 2, 2), Relation([0, 1], [1, 1], 2, 2)
    tables = (torch.tensor([[1.0], [2.0]], requires_grad=True), torch.tensor([[3.0], [4.0]], requires_grad=True))
    passes = TwoPasses((one, two), (1.0, 0.5), layer_norm=True)
    first, second = passes.whole(tables)
    assert_close(first, propagate(one, *tables, 1, weights=(1.0, 0.5), layer_norm=True))
    assert_close(second, propagate(two, *first, 1, weights=(1.0, 0.5), layer_norm=True))
    at = (torch.tensor([1, 0, 1]), torch.tensor([0, 1, 1, 0]))
    expected = tuple(rows[chosen] for rows, chosen in zip(first, at, strict=True))
    last = (second[0][at[0][2:]], second[1][at[1][1:]])
    for refresh in (None, False, True, False):  # nothing is remembered at first, and tables do not move
        made = passes.rows(tables, at, (1, 3), refresh=refresh)
        assert_close(made, (expected, last))
        assert (passes.upper is None) == (refresh is None)
