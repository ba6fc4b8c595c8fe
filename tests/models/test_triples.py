"""What a batch of triples says of its rows."""

import pytest
import torch

from mbgraph.errors import UsageError
from mbgraph.models import TripleBatch


@pytest.fixture
def batch():
    """Rows 1 and 3 lack the behavior."""
    return TripleBatch(
        torch.tensor([7, 3, 7, 0, 2]),
        {"buy": torch.tensor([4, -1, 1, -1, 4])},
        {"buy": torch.tensor([[5, 6], [-1, -1], [5, 5], [-1, -1], [0, 3]])},
    )


def test_rows_leave_out_who_lacks_the_behavior_or_pad_them(batch):
    users, positives, negatives = batch.rows("buy")
    assert users.tolist() == [7, 7, 2]
    assert positives.tolist() == [4, 1, 4]
    assert negatives.tolist() == [[5, 6], [5, 5], [0, 3]]
    users, positives, negatives = batch.rows("buy", (10, 20))
    assert users.tolist() == [7, 10, 7, 10, 2]
    assert positives.tolist() == [4, 20, 1, 20, 4]
    assert negatives.tolist() == [[5, 6], [20, 20], [5, 5], [20, 20], [0, 3]]


def test_distinct_nodes_ascend_and_padding_stands_once(batch):
    assert batch.distinct("user", "buy").tolist() == [2, 7]
    assert batch.distinct("item", "buy").tolist() == [1, 4]
    assert batch.distinct("negative", "buy").tolist() == [0, 3, 5, 6]
    assert batch.distinct("user", "buy", 10).tolist() == [2, 7, 10]
    whole = TripleBatch(torch.tensor([1, 0]), {"buy": torch.tensor([2, 2])}, {"buy": torch.tensor([3, 3])})
    assert whole.distinct("user", "buy", 10).tolist() == [0, 1]


def test_places_lead_from_distinct_nodes_back_to_rows(batch):
    for kind, rows, places in zip(("user", "item", "negative"), batch.rows("buy"), batch.places("buy"), strict=True):
        assert torch.equal(batch.distinct(kind, "buy")[places], rows)
    assert all(len(places) == 0 for places in batch.emptied().places("buy"))


def test_a_batch_moves_as_a_whole(batch):
    moved = batch.to("meta")
    tensors = [moved.users, moved.positives["buy"], moved.negatives["buy"], *moved.rows("buy")]
    tensors += [moved.distinct("user", "buy"), moved.distinct("item", "buy")]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert batch.users.device.type == batch.rows("buy")[0].device.type == "cpu"
    assert len(moved) == len(batch) == 5


def test_a_triple_without_its_user_or_a_negative_is_refused():
    """A row of -1 would read the last node."""
    good = torch.tensor([0, 1])
    several = torch.tensor([[1, 2], [3, -1]])
    for users, negatives in ((torch.tensor([0, -1]), good), (good, torch.tensor([-1, 2])), (good, several)):
        with pytest.raises(
            UsageError, match=r"a triple of 'buy' has a positive item, but no user or no negative \(-1\)"
        ):
            TripleBatch(users, {"buy": good}, {"buy": negatives})
        left_out = TripleBatch(users, {"buy": torch.tensor([-1, -1])}, {"buy": negatives})
        assert len(left_out.rows("buy")[0]) == 0


def test_positions_say_which_rows_stand_in_a_behavior():
    batch = TripleBatch(torch.tensor([4, 5, 6]), {"buy": torch.tensor([0, -1, 1])}, {"buy": torch.tensor([2, -1, 3])})
    assert batch.positions("buy").tolist() == [0, 2]
    assert [rows.tolist() for rows in batch.rows("buy")] == [[4, 6], [0, 1], [2, 3]]
    assert [rows.tolist() for rows in batch.rows("buy", padding=(8, 9))] == [[4, 8, 6], [0, 9, 1], [2, 9, 3]]
    assert batch.users[batch.positions("buy")].tolist() == batch.rows("buy")[0].tolist()
    assert batch.positions("buy", padding=(9, 9)).tolist() == [0, 1, 2]
    assert batch.emptied().positions("buy").tolist() == []
