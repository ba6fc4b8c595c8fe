"""Users with all of their pairs."""

import pytest

from mbgraph.errors import UsageError
from mbgraph.models import MBSSL, UserBatches


def test_an_epoch_holds_every_pair_once(tiny):
    training = MBSSL.Options().training().replace(batch_size=2)
    batches = UserBatches(tiny, tiny.behaviors, training, rng=1)
    assert len(batches) == 3  # u5 has no pair
    found = {name: [] for name in tiny.behaviors}
    for batch in batches.epoch(1):
        for name, (at, items) in batch.pairs.items():
            found[name] += zip(batch.users[at].tolist(), items.tolist(), strict=True)
        users, counts = batch.distinct("user", "view")
        own = batch.users[batch.pairs["view"][0]].tolist()
        assert dict(zip(users.tolist(), counts.tolist(), strict=True)) == {user: own.count(user) for user in own}
        items, counts = batch.distinct("item", "view")
        assert dict(zip(items.tolist(), counts.tolist(), strict=True)) == {
            item: batch.pairs["view"][1].tolist().count(item) for item in batch.pairs["view"][1].tolist()
        }
        assert not any(len(items) for _, items in batch.emptied().pairs.values())
    for name, pairs in tiny.edges.items():
        assert sorted(found[name]) == sorted(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))
    assert len(UserBatches(tiny, tiny.behaviors, training, drop_last=True)) == 2
    assert len(UserBatches(tiny, tiny.behaviors, training.replace(batch_size=9), drop_last=True)) == 1
    buyers = UserBatches(tiny, tiny.behaviors, training, only="cart", rng=1)
    assert sorted(user for batch in buyers.epoch(1) for user in batch.users.tolist()) == [0, 1, 2, 4]
    with pytest.raises(UsageError, match="knows no sampler 'per-edge'; leave sampler out"):
        UserBatches(tiny, tiny.behaviors, training.replace(sampler="per-edge"))
