"""Environments by their sets of pairs, and the divergence of an encoder from the standard normal distribution."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from mbgraph.nn import Relation, Relations, environments, prior_divergence

PAIRS = {"view": {(0, 0), (0, 1), (1, 2)}, "cart": {(0, 1), (2, 2)}, "buy": {(2, 0)}}


@pytest.mark.parametrize(
    ("kind", "names"),
    [("subsets", ["b", "c", "v", "bc", "bv", "cv", "bcv"]), ("singles", ["b", "c", "v", "bcv"])],
)
def test_environments_are_unions_the_target_first(kind, names):
    relations = Relations({name: Relation(*zip(*pairs, strict=True), 3, 3) for name, pairs in PAIRS.items()}, "buy")
    made = environments(relations, kind)
    assert ["".join(name[0] for name in one) for one in made] == names
    for one, relation in made.items():
        found = set(zip(relation.users.tolist(), relation.items.tolist(), strict=True))
        assert found == set().union(*(PAIRS[name] for name in one))
        assert relation.num_edges == len(found)
    assert made["cart",] is relations["cart"]


def test_the_prior_s_divergence_is_that_of_normal_distributions():
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(4, 2, 3, generator=generator), torch.randn(4, 2, 3, generator=generator)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(2)
    assert_close(prior_divergence(mean, log_variance), expected)
