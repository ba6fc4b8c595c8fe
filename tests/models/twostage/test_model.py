"""The two-stage model as a whole: labels and what they leak, its order, its words, bad input, runs, commands."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mbgraph import evaluate, recommend
from mbgraph.cli.main import cli
from mbgraph.config import FitConfig
from mbgraph.data.catalog import load_dataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.data.splits import hold_out
from mbgraph.errors import DataError, RunError, UsageError
from mbgraph.models import Conversion, LightGCN
from mbgraph.models.twostage.model import TwoStage as Model
from mbgraph.models.twostage.scorer import TwoStageScorer
from mbgraph.run import Run, fit
from mbgraph.testing.recommenders import toy_dataset

# --- order


@pytest.mark.parametrize("head", ["logit", "mlp"])
def test_lists_come_first_then_item_cosine_then_purchases(ds, head, learned, everyone):
    model = learned(ds, retrieved=3, head=head)
    scorer = model.scorer()
    scores = scorer.scores(everyone).numpy()
    where, pairs, values = scorer.lists(np.arange(24))
    assert np.array_equal(where, pairs.users)
    alike = scorer.facts.weights.toarray().astype(float) @ scorer.facts.similar("all").toarray().astype(float)
    popular = np.bincount(ds.edges["buy"].item, minlength=17)
    for user in range(24):
        own = pairs.items[pairs.users == user]
        np.testing.assert_allclose(scores[user, own], values[pairs.users == user], atol=1e-8)
        rest = np.setdiff1d(np.arange(17), own)
        if len(own):
            assert scores[user, rest].max() < scores[user, own].min()
        order = sorted(rest, key=lambda item: (-round(alike[user, item], 5), -popular[item], item))
        found = rest[np.argsort(-scores[user, rest], kind="stable")]
        assert [round(alike[user, item], 5) for item in found] == [round(alike[user, item], 5) for item in order]
    assert found.tolist() == order  # the last user did nothing: purchases alone


def test_scores_are_the_weights_times_the_evidence(ds, learned):
    model = learned(ds)
    _, pairs, values = model.scorer().lists(np.arange(24))
    explained = model.explain(pairs.users, pairs.items)
    np.testing.assert_allclose([sum(each.values()) for each in explained], values, atol=1e-5)
    for each in explained:
        assert list(each.values()) == sorted(each.values(), reverse=True)
    names = {each["name"] for each in model.weights()}
    assert set().union(*explained) <= names


def test_blocks_of_users_change_nothing(ds, monkeypatch, learned, everyone):
    from mbgraph.models.twostage import scorer

    whole = learned(ds).scorer().scores(everyone)
    monkeypatch.setattr(scorer, "block_of_users", lambda facts: 5)
    made = learned(ds).scorer()
    assert torch.allclose(made.scores(everyone), whole, atol=1e-4)  # products round as their shapes demand
    parts = torch.cat([made.scores(part) for part in everyone.split(7)])
    assert torch.equal(parts, made.scores(everyone))
    shuffled = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.scores(shuffled), made.scores(everyone)[shuffled])


def test_memory_is_that_of_the_users_asked_for(ds, monkeypatch, learned):
    from mbgraph.models.twostage import scorer

    monkeypatch.setattr(scorer, "block_of_users", lambda facts: 4)
    made = learned(ds).scorer()
    made.scores(torch.tensor([1, 9]))
    assert set(made._made) == {0, 2}


def test_both_ways_to_score_agree(ds, learned, everyone):
    made = learned(ds).scorer()
    assert isinstance(made, TwoStageScorer)
    out = torch.full((24, 17), torch.nan).double()
    assert torch.equal(made.scores_into(everyone, out), made.scores(everyone))


def test_what_was_fitted_on_one_graph_scores_another(ds, learned, everyone):
    model = learned(ds)
    fewer = ds.replace(edges={**ds.edges, "view": ds.edges["view"][:-5]})
    assert not torch.equal(model.scorer(fewer.graph).scores(everyone), model.scorer().scores(everyone))


@pytest.mark.slow
def test_it_is_ahead_of_conversion_where_there_is_something_to_learn(learned):
    ds = load_dataset("demo")
    model = learned(ds, rng=0)
    ours, anchor = evaluate(model, ds), evaluate(Conversion(ds.graph, ds.target), ds)
    assert ours.metrics["HR@10"] > 1.1 * anchor.metrics["HR@10"]
    assert ours.groups["unvisited"]["metrics"]["HR@10"] > 5 * anchor.groups["unvisited"]["metrics"]["HR@10"]
    within = model.told["cross_fitted"]["HR@10"]
    assert within == pytest.approx(evaluate(model, ds, split="valid").metrics["HR@10"], abs=0.03)


def test_few_users_are_enough_to_fit_on(ds, learned):
    told = learned(ds, fit_users=5).told
    assert told["labels"]["users"] == 5
    assert told["labels"]["seen"] + told["labels"]["retrieved"] + told["labels"]["missed"] == 5


def test_several_labels_of_a_user_all_count(ds, learned):
    pairs = [(user, item) for user, item in zip(ds.valid.user, ds.valid.item, strict=True)]
    free = {user: set(range(16)) - set(ds.csr("buy").row(user)) - {item} for user, item in pairs}
    taken = {(u, i) for u, i in zip(ds.test.user, ds.test.item, strict=True)}
    more = [(user, min(i for i in items if (user, i) not in taken)) for user, items in free.items()]
    both = ds.replace(splits={**ds.splits, "valid": Pairs(*np.array(pairs + more).T)})
    told = learned(both).told["labels"]
    assert told["pairs"] == 2 * len(pairs)
    assert told["seen"] + told["retrieved"] + told["missed"] == 2 * len(pairs)


# --- bad input


def test_nobody_has_a_seen_item(ds, learned):
    """Every touched item was bought: only the retrieved list is left, and says so."""
    buy = ds.edges["buy"]
    view = Pairs(np.append(buy.user[::2], ds.valid.user), np.append(buy.item[::2], ds.valid.item))
    keys = np.unique(view.keys(17))
    bought = np.union1d(buy.keys(17), keys)
    whole = ds.replace(
        edges={"view": Pairs(keys // 17, keys % 17), "buy": Pairs(bought // 17, bought % 17)},
        splits={
            "valid": Pairs(
                np.array([5]), np.array([int(np.setdiff1d(np.arange(16), bought[bought // 17 == 5] % 17)[0])])
            )
        },
    )
    with pytest.raises(DataError, match="every pair of 'view' is a pair of 'buy'"):
        learned(whole)


def test_no_list_but_the_retrieved_one(learned):
    """Views of users who buy nothing are on seen lists of nobody with a label."""
    buy = Pairs(np.repeat(np.arange(8), 3), (np.repeat(np.arange(8), 3) + np.tile([0, 1, 2], 8)) % 9)
    view = Pairs(np.array([8]), np.array([0]))
    ds = toy_dataset().replace(
        users=Vocabulary(size=9, kind="user"),
        items=Vocabulary(size=9, kind="item"),
        edges={"view": view, "buy": buy},
        splits={},
    )
    model = learned(ds)
    seen = [each["weight"] for each in model.weights() if each["list"] == "seen"]
    assert seen == [0.0] * len(seen)
    assert "no user has an item on the seen list, whose weights are 0" in model.told["notices"]
    assert torch.isfinite(model.scorer().scores(torch.arange(9))).all()


def test_no_validation_pair(ds, learned):
    bare = ds.replace(splits={"test": ds.test})
    assert learned(bare).told["labels"]["source"] == "held-out"
    with pytest.raises(UsageError, match="'toy' has no validation pairs; use --set labels=held-out"):
        learned(bare, labels="validation")


def test_nobody_has_two_purchases(ds, learned):
    one = Pairs(np.arange(10), np.arange(10))
    bare = ds.replace(edges={**ds.edges, "buy": one}, splits={})
    with pytest.raises(DataError, match="no user of 'toy' has two train pairs of 'buy', so none can be held out"):
        learned(bare)


def test_one_label(ds, learned):
    """It is little to go by: weights near 0, finite errors, one line that says so."""
    user, item = next((u, i) for u, i in zip(ds.valid.user, ds.valid.item, strict=True) if i in seen_of(ds, u))
    told = learned(ds.replace(splits={"valid": Pairs(np.array([user]), np.array([item]))})).told
    assert told["labels"]["pairs"] == 1
    assert all(np.isfinite([each["weight"], each["error"]]).all() for each in told["weights"])
    assert told["notices"][0].startswith("only 1 labels for")
    assert told["cross_fitted"] == {}


def seen_of(ds, user):
    touched = set(ds.csr("view").row(user)) | set(ds.csr("cart").row(user))
    return touched - set(ds.csr("buy").row(user))


def test_no_label_on_any_list(ds, learned):
    user, item = next((u, i) for u, i in zip(ds.valid.user, ds.valid.item, strict=True) if i not in seen_of(ds, u))
    only = ds.replace(splits={"valid": Pairs(np.array([user]), np.array([item]))})
    with pytest.raises(DataError, match="none of the 1 labels stands on its user's lists; retrieve more items"):
        learned(only, retrieved=0)


def test_a_copy_of_the_target_is_refused(ds, learned):
    for pairs in (ds.edges["buy"], ds.edges["buy"][::2]):
        copied = ds.replace(edges={"view": ds.edges["view"], "paid": pairs, "buy": ds.edges["buy"]})
        with pytest.raises(DataError, match="every pair of 'paid' is a pair of 'buy': it is the answer"):
            learned(copied)


def test_two_behaviors_that_are_the_same(ds, learned, everyone):
    """Collinear evidence: columns of both share a weight, and the model is still the same function of the graph."""
    twice = ds.replace(edges={"view": ds.edges["view"], "look": ds.edges["view"], "buy": ds.edges["buy"]})
    found = {each["name"]: each["weight"] for each in learned(twice).weights() if each["list"] == "seen"}
    assert found["users of the item: view"] == pytest.approx(found["users of the item: look"], abs=1e-6)
    assert torch.isfinite(learned(twice).scorer().scores(everyone)).all()


def test_lists_of_one(ds, learned, everyone):
    """Users with a single candidate choose it for certain, and say nothing about weights."""
    model = learned(ds, retrieved=1)
    assert torch.isfinite(model.scorer().scores(everyone)).all()
    alone = toy_dataset().replace(
        edges={
            "view": Pairs(np.arange(7), np.arange(7)),
            "buy": Pairs(np.arange(6), (np.arange(6) + 1) % 6),
        },
        splits={"valid": Pairs(np.arange(6), np.arange(6))},
    )
    made = learned(alone, retrieved=0)
    assert [each["weight"] for each in made.weights()] == [0.0] * len(made.weights())
    assert made.told["loss"] == pytest.approx(0.0)


def test_nothing_to_go_by(ds, learned):
    """No evidence at all: the intercept of untouched items is the only weight."""
    model = learned(ds, evidence=())
    assert [each["name"] for each in model.weights()] == ["untouched item"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"l2": 0.0}, "l2 of model 'twostage' must be a number above 0 and of at most 1000000, got 0"),
        ({"retrieved": -1}, "retrieved of model 'twostage' must be a whole number from 0 to 10000, got -1"),
        ({"head": "tree"}, "unknown head of model 'twostage' 'tree'"),
        ({"visited_share": 1.5}, "visited_share of model 'twostage' must be"),
    ],
)
def test_wrong_options(ds, options, what, build):
    with pytest.raises(UsageError, match=what):
        build(ds, **options)


# --- runs of other models


@pytest.fixture
def attached(build):
    """Return a model with a run attached."""

    def made(ds):
        model = build(ds, runs=("one",))
        model.attach({"one": LightGCN(ds.graph, ds.target, embedding_dim=4, num_layers=1, rng=1)})
        return model

    return made


def test_a_run_is_evidence_on_both_lists(ds, attached, everyone):
    model = attached(ds)
    model.learn(ds)
    lists = [each["list"] for each in model.weights() if each["name"] == "dot product of one"]
    assert lists == ["seen", "retrieved"]
    assert torch.isfinite(model.scorer().scores(everyone)).all()


def test_a_run_that_is_not_attached_is_asked_for(ds, build):
    with pytest.raises(UsageError, match="the embeddings of run 'one' are not there; attach them"):
        build(ds, runs=("one",)).learn(ds)


def test_a_run_that_has_seen_the_labels_is_refused(ds, attached):
    bare = ds.replace(splits={})
    with pytest.raises(UsageError, match="one was trained on the purchases that labels=held-out fits the weights on"):
        attached(bare).learn(bare)
    held = hold_out(bare, n=1, rng=0)
    attached(held).learn(held)  # held out for both: what it was trained on is what is counted


def test_models_without_embeddings_are_refused(ds, build):
    with pytest.raises(UsageError, match="model 'conversion' has no embeddings"):
        build(ds, runs=("one",)).attach({"one": Conversion(ds.graph, ds.target)})
    with pytest.raises(UsageError, match="model 'conversion' reads no other runs; use --model twostage"):
        Conversion(ds.graph, ds.target).attach({})


def test_models_that_learn_otherwise_say_how(ds):
    with pytest.raises(UsageError, match="'conversion' learns nothing in one go; evaluate it as it is"):
        Conversion(ds.graph, ds.target).learn(ds)
    with pytest.raises(UsageError, match="'lightgcn' learns nothing in one go; train it with mbgraph.Trainer"):
        LightGCN(ds.graph, ds.target, embedding_dim=4).learn(ds)


# --- the command line


def test_a_run_from_fit_to_explanation(small, small_folder, tmp_path):
    """Weights with errors are printed, the run is loaded, evaluated, explained, resumed, and refuses to be exported."""

    def call(*words, code=0):
        result = CliRunner().invoke(cli, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    base, run, plain = tmp_path / "base", tmp_path / "run", tmp_path / "plain"
    quick, user = ("--set", "embedding_dim=4", "--epochs", "1", "--quiet"), small.users[1]
    call("fit", small_folder, "--model", "lightgcn", *quick, "--out", base)
    shown = call("fit", small_folder, "--model", "twostage", "--out", run, "--quiet", "--set", f"runs={base}")
    for words in ("Weights of standardised evidence", "pattern rate of the item", f"dot product of {base}", "labels:"):
        assert words in "".join(shown.split("\n")), words
    told = json.loads(call("fit", small_folder, "--model", "twostage", "--out", plain, "--quiet", "--json"))
    assert {"list", "evidence", "name", "weight", "error"} == set(told["learned"]["weights"][0])
    evaluated = json.loads(call("evaluate", plain, "--json"))
    assert evaluated["test"]["HR@10"] == told["test"]["HR@10"]
    again = json.loads(call("fit", "--resume", plain, "--quiet", "--json"))
    assert again["learned"] == told["learned"]
    assert again["test"] == told["test"]
    (answer,) = json.loads(call("recommend", run, user, "-k", "3", "--explain", "--json"))
    assert len(answer["evidence"]) == len(answer["items"]) == 3
    assert "what speaks for it most" in call("recommend", run, user, "--explain")
    file = tmp_path / "made.csv"
    call("recommend", run, user, "--explain", "-o", file)
    assert "evidence" in file.read_text().splitlines()[0]
    assert "has no evidence to show; use --model twostage" in call("recommend", base, user, "--explain", code=2)
    assert "has no embeddings" in call("export", run, "-o", tmp_path / "made.npz", code=2)
    planned = json.loads(call("fit", small_folder, "--model", "twostage", "--dry-run", "--json"))
    assert "learning" in planned["memory"]
    assert "reads no training options" in call("fit", small_folder, "--model", "twostage", "--epochs", "3", code=2)


def test_a_run_of_other_train_pairs_is_refused(small_folder, tmp_path):
    fit(
        FitConfig(
            dataset=str(small_folder),
            model="lightgcn",
            validation="holdout",
            training={"epochs": 1},
            options={"embedding_dim": 4},
        ),
        tmp_path / "base",
    )
    config = FitConfig(dataset=str(small_folder), model="twostage", options={"runs": [str(tmp_path / "base")]})
    with pytest.raises(DataError, match=r"was built on other 'buy' edges"):
        fit(config, tmp_path / "run")
    with pytest.raises(RunError, match="no run directory"):
        fit(config.replace(options={"runs": [str(tmp_path / "none")]}), tmp_path / "other")


def test_a_run_loads_to_the_same_scores(small_folder, tmp_path):
    config = FitConfig(dataset=str(small_folder), model="twostage", options={"head": "mlp"}, seed=3)
    told = fit(config, tmp_path / "run")
    model = Run.load(tmp_path / "run").model()
    assert isinstance(model, Model)
    assert model.weights() == told["learned"]["weights"]
    ds = Run.load(tmp_path / "run").dataset()
    assert evaluate(model, ds).metrics["HR@10"] == told["test"]["HR@10"]
    frame = recommend(model, ds, k=2, explain=True)
    assert frame["evidence"].map(type).eq(dict).all()


def test_strangers_have_no_evidence(ds, learned):
    frame = recommend(learned(ds), ds, users=[0, 23], k=2, fallback="popularity", explain=True)
    assert frame["evidence"][frame["fallback"]].map(len).tolist() == [0, 0]
    assert (frame["evidence"][~frame["fallback"]].map(len) > 0).all()


def test_a_scorer_alone_explains_nothing(ds, learned):
    with pytest.raises(UsageError, match="a TwoStageScorer has no evidence to show; give the model itself"):
        recommend(learned(ds).scorer(), ds, k=2, explain=True)
