"""What every model inherits: options, relations, checks of graphs and datasets, tables, a step's random draws."""

import numpy as np
import pytest
import torch

from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.models import (
    MODELS,
    EmbeddingOptions,
    EmbeddingRecommender,
    Encoded,
    LightGCN,
    Popularity,
    Recommender,
    RMBRec,
    StepContext,
    UpdateRule,
    build_model,
)
from mbgraph.nn import Relations


def test_a_dataset_other_than_the_model_s_is_named(tiny):
    model = LightGCN(tiny.graph, "buy", embedding_dim=8)
    model.check_dataset(tiny)
    model.check_dataset(tiny.replace(splits={}))  # held-out pairs are no matter of the model's
    buys = tiny.edges["buy"]
    for changed in (buys[1:], buys[::-1]):
        other = tiny.replace(edges={**tiny.edges, "buy": changed}, splits={})
        if len(changed) == len(buys):
            model.check_dataset(other)  # the order of a file's lines says nothing
            continue
        with pytest.raises(DataError, match="was built on other 'buy' edges than the train edges of dataset 'tiny'"):
            model.check_dataset(other)
    without = tiny.replace(edges={"like": buys, "view": tiny.edges["view"]}, target="like", splits={})
    with pytest.raises(DataError, match="was built on other 'buy' edges"):
        model.check_dataset(without)
    whole = RMBRec(tiny.graph, "buy", embedding_dim=8)
    with pytest.raises(DataError, match="was built on other 'view' edges"):
        whole.check_dataset(tiny.replace(edges={**tiny.edges, "view": tiny.edges["view"][1:]}))


def test_a_graph_over_other_nodes_is_refused(tiny, small):
    for kind in (Popularity, LightGCN, RMBRec):
        model = kind(tiny.graph, "buy")
        with pytest.raises(
            UsageError, match="the graph has 120 users and 50 items, the model 6 and 5; give a graph over"
        ):
            model.scorer(small.graph)
        with pytest.raises(DataError, match=r"built for 6 users x 5 items, dataset 'small' has 120 x 50"):
            model.check_dataset(small)


def test_behaviors_come_in_the_dataset_s_order_the_target_last(tiny):
    reordered = tiny.replace(edges={name: tiny.edges[name] for name in ("cart", "buy", "view")}, splits={})
    assert RMBRec(reordered.graph, "buy", embedding_dim=8).behaviors == ("cart", "view", "buy")
    assert RMBRec(tiny.graph, "view", embedding_dim=8).behaviors == ("cart", "buy", "view")
    assert RMBRec(tiny.graph, "buy", behaviors=("buy", "cart"), embedding_dim=8).behaviors == ("cart", "buy")
    given = Relations.of(tiny.graph, ("cart", "view", "buy"), "buy")
    assert RMBRec(given, "buy", embedding_dim=8).behaviors == ("cart", "view", "buy")


@pytest.mark.parametrize("rng", [-1, 1.5, "3", True, None])
def test_the_seed_is_a_whole_number(tiny, rng):
    with pytest.raises(UsageError, match=r"rng must be a non-negative integer, got .*it is the seed of the init"):
        LightGCN(tiny.graph, "buy", rng=rng)


def test_tables_depend_on_the_seed_alone(tiny):
    one, same, other = (LightGCN(tiny.graph, "buy", rng=seed).user_embedding for seed in (1, np.int64(1), 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_tables_are_normal_or_xavier_uniform(small):
    class Wide(EmbeddingRecommender):
        name = "wide"
        Options = EmbeddingOptions

        def encode(self, graph=None):
            return Encoded(*self.tables)

    model = Wide(small.graph, small.target, rng=0)
    model.make_tables(256, std=0.3, padding=2)
    assert [tuple(table.shape) for table in model.tables] == [(122, 256), (52, 256)]
    assert [float(table.detach().std()) for table in model.tables] == pytest.approx([0.3, 0.3], rel=0.05)
    model.make_tables(256)
    for table, count in zip(model.tables, (120, 50), strict=True):
        bound = (6 / (count + 256)) ** 0.5
        assert 0.98 * bound < float(table.detach().abs().max()) <= bound


def test_forward_is_the_step(tiny):
    """What wrappers such as DistributedDataParallel call."""
    model = LightGCN(tiny.graph, "buy", embedding_dim=8, rng=1)
    batch = next(iter(model.batches(tiny, model.options.training(), 0).epoch(1)))
    made, expected = model(batch, StepContext()), model.step(batch, StepContext())
    assert torch.equal(made.losses["main"], expected.losses["main"])


def test_a_model_that_is_not_trained_says_so(tiny):
    model = Popularity(tiny.graph, "buy")
    with pytest.raises(UsageError, match="model 'popularity' is not trained; evaluate it as it is"):
        model.step(None, StepContext())
    with pytest.raises(UsageError, match="model 'popularity' has no embeddings; use an embedding model such as rmbrec"):
        model.encode()


def test_build_model_reads_options_of_its_class(tiny):
    made = build_model("lightgcn", tiny.graph, "buy", {"embedding_dim": 3, "combine": "sum"}, rng=4)
    assert (type(made), made.options.embedding_dim, made.options.combine, made.rng) == (LightGCN, 3, "sum", 4)
    with pytest.raises(UnknownNameError, match="option of model 'lightgcn' 'dim'"):
        build_model("lightgcn", tiny.graph, "buy", {"dim": 3})
    with pytest.raises(UsageError, match="embedding_dim of model 'lightgcn' must be a whole number from 1 .*got 8.5"):
        build_model("lightgcn", tiny.graph, "buy", {"embedding_dim": 8.5})
    with pytest.raises(UnknownNameError, match="unknown target behavior 'by'; did you mean 'buy'"):
        build_model("popularity", tiny.graph, "by")


def test_every_model_names_itself_in_messages_about_its_options():
    for name in MODELS:
        kind = MODELS.get(name)
        assert issubclass(kind, Recommender)
        assert kind.name == name
        with pytest.raises(UnknownNameError, match=f"unknown option of model '{name}' 'nothing'"):
            kind.Options(nothing=1)


def test_the_draws_of_a_step_belong_to_seed_epoch_step_and_name():
    def drawn(*where, name="step"):
        return tuple(torch.rand(4, generator=StepContext(*where).generator(name)).tolist())

    assert drawn(2, 3, 5) == drawn(2, 3, 5)
    context = StepContext(2, 3, 5)
    first = torch.rand(4, generator=context.generator())
    torch.rand(9, generator=context.generator("other"))
    assert torch.equal(torch.rand(4, generator=context.generator()), first)  # asked again it starts again
    others = [drawn(1, 3, 5), drawn(2, 2, 5), drawn(2, 3, 4), drawn(2, 3, 5, name="other"), drawn(3, 2, 5)]
    assert len({drawn(2, 3, 5), *others}) == 6
    before = torch.random.get_rng_state()
    StepContext().generator()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_behavior_alone_gets_a_model_of_the_same_kind_named(tiny):
    alone = tiny.replace(edges={"buy": tiny.edges["buy"]})
    for name, instead in (("rmbrec", "lightgcn"), ("conversion", "popularity")):
        with pytest.raises(UsageError, match=f"{name} needs an auxiliary behavior .*; use --model {instead}"):
            build_model(name, alone.graph, "buy")


def test_the_sum_of_terms_is_minimised_by_default(tiny):
    model = build_model("lightgcn", tiny.graph, "buy")
    assert type(model.update_rule(model.options.training())) is UpdateRule


def test_a_cascade_of_another_order_than_the_dataset_s_is_named(tiny):
    names = tuple(tiny.edges)
    build_model("crgcn", tiny.graph, "buy", behaviors=names).check_dataset(tiny)
    other = build_model("crgcn", tiny.graph, "buy", behaviors=("cart", "view", "buy"))
    with pytest.raises(
        DataError, match=r"the model reads cart, view, buy, dataset 'tiny' has view, cart, buy; build it"
    ):
        other.check_dataset(tiny)
