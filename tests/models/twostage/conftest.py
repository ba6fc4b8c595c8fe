"""What the tests of the two-stage model share: a small dataset and models of it, built and learned."""

import pytest
import torch

from mbgraph.models import TwoStage
from mbgraph.testing.recommenders import toy_dataset


@pytest.fixture
def ds():
    return toy_dataset()


@pytest.fixture
def everyone(ds):
    """All users by number."""
    return torch.arange(ds.num_users)


@pytest.fixture
def build():
    """Return a model of a dataset, with any options."""

    def made(ds, rng=1, **options):
        return TwoStage(ds.graph, ds.target, behaviors=ds.behaviors, rng=rng, **options)

    return made


@pytest.fixture
def learned(build):
    """Return a model that has learned; what it says of it is its ``told``."""

    def made(ds, rng=1, **options):
        model = build(ds, rng, **options)
        model.told = model.learn(ds)
        return model

    return made
