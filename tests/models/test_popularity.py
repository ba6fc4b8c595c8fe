"""Popularity counts buyers, the same for everybody."""

import numpy as np
import pytest
import torch

from mbgraph import evaluate
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.models import Popularity, build_model


def test_scores_count_train_buyers(tiny):
    scores = Popularity(tiny.graph, tiny.target).scorer().scores(torch.tensor([0, 5]))
    assert scores.tolist() == [[2, 1, 1, 1, 0]] * 2


def test_both_ways_to_score_agree(tiny):
    scorer, rows = Popularity(tiny.graph, "buy").scorer(), torch.arange(6)
    assert torch.equal(scorer.scores_into(rows, torch.full((6, 5), torch.nan).double()), scorer.scores(rows))


def test_held_out_pairs_are_not_read(tiny):
    bare = tiny.replace(splits={})
    rows = torch.arange(6)
    scores = [Popularity(ds.graph, ds.target).scorer().scores(rows) for ds in (tiny, bare)]
    assert torch.equal(*scores)


def test_another_target_and_another_graph(tiny):
    views = Popularity(tiny.graph, "view")
    assert views.scorer().scores(torch.tensor([0]))[0].tolist() == [3, 2, 2, 2, 0]
    fewer = tiny.replace(edges={**tiny.edges, "view": tiny.edges["view"][:4]})
    assert views.scorer(fewer.graph).scores(torch.tensor([0]))[0].tolist() == [1, 2, 1, 0, 0]


def test_it_is_a_model_that_is_not_trained(tiny):
    model = build_model("popularity", tiny.graph, "buy")
    assert not model.trainable
    assert model.options.plain() == {}
    with pytest.raises(UsageError, match="'popularity' has no embeddings"):
        model.encode()
    with pytest.raises(UnknownNameError, match="unknown option of model 'popularity' 'smoothing'"):
        build_model("popularity", tiny.graph, "buy", {"smoothing": 1})


def test_ranks_by_hand(tiny):
    """Buyers per item: 2 1 1 1 0. u0 bought i0: i1, i2, i3 tie on rank 1..3. And so on."""
    result = evaluate(Popularity(tiny.graph, "buy"), tiny, k=(1, 2))
    found = dict(
        zip(zip(result.pair_user.tolist(), result.pair_item.tolist(), strict=True), result.pair_rank, strict=True)
    )
    assert found == {(0, 2): 2.0, (2, 0): 1.0, (2, 3): 2.5, (3, 1): 2.0}
    assert np.isclose(result.metrics["HR@2"], 1.0)
