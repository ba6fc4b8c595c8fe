"""Steps over blocks of users: whose pairs they read, and that a run repeats and resumes."""

import pytest
import torch

from mbgraph.models import MODELS
from mbgraph.models.context import StepContext
from mbgraph.testing.recommenders import toy_dataset
from mbgraph.training import Trainer


def make(name="rmbrec", directory=None, **options):
    ds = toy_dataset()
    model = MODELS.get(name)(ds.graph, ds.target, embedding_dim=8, num_layers=2, rng=1)
    given = {"epochs": 3, "batch_size": 6, "rng": 3, **options}
    return Trainer(model, ds, device="cpu", directory=directory, **given)


def test_a_block_holds_the_batch_and_others_up_to_its_size():
    trainer = make(block_users=10)
    batch = next(iter(trainer.batches.epoch(1)))
    own = set(batch.users.tolist())
    blocks = [set(trainer.block(batch, StepContext(1, step, 3)).users.tolist()) for step in (0, 0, 1)]
    assert [len(block) for block in blocks] == [10, 10, 10]
    assert all(own < block for block in blocks)
    assert blocks[0] == blocks[1] != blocks[2]
    small = make(block_users=2).block(batch, StepContext(1, 0, 3))
    assert set(small.users.tolist()) == own
    assert make(block_users=99).block(batch, StepContext(1, 0, 3)).users.tolist() == list(range(24))
    assert make().block(batch, StepContext(1, 0, 3)) is None


def test_a_block_of_everybody_trains_as_the_whole_graph_does():
    whole, block = make(), make(block_users=24)
    for trainer in (whole, block):
        trainer.fit()
    assert whole.records[-1]["terms"] == pytest.approx(block.records[-1]["terms"], rel=1e-4)
    part = make(block_users=6)
    part.fit()
    assert part.records[0]["terms"]["main"] != pytest.approx(whole.records[0]["terms"]["main"], rel=1e-4)


@pytest.mark.parametrize("name", ["rmbrec", "lightgcn"])
def test_it_repeats_and_resumes(name, tmp_path):
    whole, again = make(name, block_users=8), make(name, tmp_path, block_users=8, epochs=2)
    whole.fit()
    again.fit()
    resumed = make(name, tmp_path, block_users=8)
    resumed.fit(resume=True)
    assert [record["terms"] for record in resumed.records] == [record["terms"] for record in whole.records]
    for one, two in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, two)
