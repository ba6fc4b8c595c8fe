"""Batches that move as one piece: the same numbers, shapes and types in the same places."""

from dataclasses import dataclass, field

import pytest
import torch

from mbgraph.models.moving import moved, rebuilt, tensors_of


@dataclass(frozen=True)
class Batch:
    """Every kind of place that a tensor may stand in."""

    users: torch.Tensor
    groups: dict
    kinds: torch.Tensor | None = None
    _made: dict = field(init=False, default_factory=dict)

    def __post_init__(self):
        assert not self._made, "a copy is not made again"
        self._made["distinct"] = (torch.unique(self.users), torch.tensor([[0.5]]))


@pytest.fixture
def batch():
    return Batch(
        torch.tensor([3, 1, 3]),
        {"view": (torch.tensor([[1, 2], [3, 4]]), torch.empty(0, dtype=torch.int64)), "none": None},
        torch.tensor([True, False]),
    )


def test_tensors_are_found_and_replaced_in_order(batch):
    found = tensors_of(batch)
    assert [tuple(tensor.shape) for tensor in found] == [(3,), (2, 2), (0,), (2,), (2,), (1, 1)]
    doubled = rebuilt(batch, [tensor + tensor if tensor.dtype != torch.bool else ~tensor for tensor in found])
    assert doubled.users.tolist() == [6, 2, 6]
    assert doubled.groups["view"][0].tolist() == [[2, 4], [6, 8]]
    assert doubled.groups["none"] is None
    assert doubled.kinds.tolist() == [False, True]
    assert doubled._made["distinct"][0].tolist() == [2, 6]
    assert batch.users.tolist() == [3, 1, 3]


def test_another_device_is_reached_in_one_copy_per_type(batch, monkeypatch):
    """On torch's device without numbers only places, shapes and types can be seen; on the way there, the copies."""
    copies = []
    real = torch.Tensor.to

    def to(tensor, *arguments, **options):
        copies.append((tensor.dtype, tensor.numel()))
        return real(tensor, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "to", to)
    made = moved(batch, "meta")
    assert sorted(copies, key=str) == [(torch.bool, 2), (torch.float32, 1), (torch.int64, 9)]
    for before, after in zip(tensors_of(batch), tensors_of(made), strict=True):
        assert (after.device.type, after.shape, after.dtype) == ("meta", before.shape, before.dtype)


def test_parts_of_one_piece_are_the_tensors(batch, monkeypatch):
    """What is cut out of the piece is what went in: with the CPU taken for another device."""
    monkeypatch.setattr("mbgraph.models.moving.torch.device", lambda device: type("Other", (), {"type": "other"})())
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *arguments, **options: tensor.clone())
    for before, after in zip(tensors_of(batch), tensors_of(moved(batch, "other")), strict=True):
        assert torch.equal(before, after)
        assert before.data_ptr() != after.data_ptr() or not before.numel()
