"""What the tests of training share: the small dataset under one name, and trainers of a small model of it."""

import pytest

from mbgraph.models import RMBRec
from mbgraph.training import Trainer


@pytest.fixture
def dataset(small):
    return small


@pytest.fixture
def make():
    """Return a trainer of a dataset, with any options."""

    def made(dataset, **options):
        model = RMBRec(dataset.graph, dataset.target, embedding_dim=8, num_layers=2, rng=5)
        return Trainer(model, dataset, **{"epochs": 4, "batch_size": 64, "rng": 5, "lr": 0.01, **options})

    return made
