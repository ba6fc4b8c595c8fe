"""What every model must do: `RecommenderCases` all, `TrainedRecommenderCases` and `LearnedRecommenderCases` some."""

from __future__ import annotations

import copy
import gc
import io
import itertools
import math
import pickle
import weakref
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from mbgraph.data.catalog import load_dataset
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError, UsageError
from mbgraph.evaluation.evaluate import evaluate, held_out_pairs, scorer_for
from mbgraph.evaluation.ranking import held_out_ranks
from mbgraph.models.base import MODELS, Recommender
from mbgraph.models.context import StepContext
from mbgraph.nn.blocks import Block, reading
from mbgraph.nn.relation import Relation
from mbgraph.recommend import recommend
from mbgraph.testing.devices import DeviceCases, TrainedDeviceCases
from mbgraph.training.trainer import Trainer

__all__ = [
    "COMPILING_TORCH",
    "LearnedRecommenderCases",
    "RecommenderCases",
    "TrainedRecommenderCases",
    "recommender_cases",
    "toy_dataset",
]

COMPILING_TORCH = "2.11"
"""The first version of torch whose compiler is known to trace a step as one graph; eager steps need none of it."""

_USERS, _ITEMS = 24, 17
_SMALL = {"embedding_dim": 8, "num_layers": 2, "intents": 4, "length": 12}
"""Options of models under test, where they have such."""

_CASES: dict[str, dict[str, Any]] = {
    "bcipm": {"training": {"batch_size": 64}},
    "mbssl": {"training": {"batch_size": 12}, "demo_options": {"variant": "light"}, "demo_epochs": 10},
    "missl": {"training": {"batch_size": 12}, "demo_options": {"variant": "light"}, "demo_epochs": 5},
}
"""What makes cases short where defaults take long: batches hold every edge of every behavior, or models are deep."""


def toy_dataset(behaviors: tuple[str, ...] = ("view", "cart", "buy"), seed: int = 0) -> MultiBehaviorDataset:
    """Return 24 users x 17 items: the last user and the last item have no edge, some users lack a behavior.

    Everyone else has one held-out test item, and half of them a validation item.
    """
    rng = np.random.default_rng(seed)
    target = behaviors[-1]
    dense = {name: rng.random((_USERS, _ITEMS)) < 0.25 for name in behaviors}
    for name, matrix in dense.items():
        matrix[np.arange(_USERS), np.arange(_USERS) % (_ITEMS - 1)] = True
        if name != target:
            matrix[3:7] = False
        matrix[-1], matrix[:, -1] = False, False
    held: dict[str, list[tuple[int, int]]] = {"valid": [], "test": []}
    for user in range(_USERS - 1):
        free = np.flatnonzero(~dense[target][user, : _ITEMS - 1])
        chosen = rng.choice(free, 2, replace=False)
        held["test"].append((user, int(chosen[0])))
        if user % 2:
            held["valid"].append((user, int(chosen[1])))
    return MultiBehaviorDataset(
        "toy",
        Vocabulary(size=_USERS, kind="user"),
        Vocabulary(size=_ITEMS, kind="item"),
        {name: Pairs(*np.nonzero(matrix)) for name, matrix in dense.items()},
        target,
        {split: Pairs(*np.array(pairs, np.int64).T) for split, pairs in held.items()},
    )


class RecommenderCases(DeviceCases):
    """Inherit, and set ``model`` to a class or a registered name; ``options`` make it small and quick."""

    model: ClassVar[type[Recommender] | str]
    options: ClassVar[dict[str, Any]] = {}
    behaviors: ClassVar[tuple[str, ...]] = ("view", "cart", "buy")

    @property
    def needs_auxiliary(self) -> bool:
        """Whether the model says that it cannot do with the target alone."""
        return self.kind.needs_auxiliary

    @property
    def kind(self) -> type[Recommender]:
        """The model's class."""
        return MODELS.get(self.model) if isinstance(self.model, str) else self.model

    def small(self) -> dict[str, Any]:
        """Return options that make the model small, where it has them."""
        known = self.kind.Options.names()
        return {**{name: value for name, value in _SMALL.items() if name in known}, **self.options}

    def build(self, ds: MultiBehaviorDataset, rng: int = 1, **changes: Any) -> Recommender:
        """Return a model of a dataset."""
        return self.kind(ds.graph, ds.target, behaviors=ds.behaviors, rng=rng, **{**self.small(), **changes})

    def ready(self, ds: MultiBehaviorDataset, **changes: Any) -> Recommender:
        """Return a model that may be asked for scores."""
        model = self.build(ds, **changes)
        if model.learns:
            model.learn(ds)
        return model

    def scores(self, model: Recommender) -> Tensor:
        """Return the scores of all users: (U, I)."""
        with torch.no_grad():
            return model.eval().scorer().scores(torch.arange(model.num_users)).clone()

    def test_shapes(self) -> None:
        """Scores are finite numbers for all users and items, isolated ones included."""
        ds = toy_dataset(self.behaviors)
        scores = self.scores(self.ready(ds))
        assert scores.shape == (ds.num_users, ds.num_items)
        assert torch.isfinite(scores).all()

    def test_recommendations_and_ranks_say_the_same(self) -> None:
        """The best item of a list has rank 1, and ranks do not depend on who is scored together."""
        ds = toy_dataset(self.behaviors)
        model = self.ready(ds).eval()
        scorer = scorer_for(model, ds)
        parts = {"test": held_out_pairs(ds, "test", "train-target")[0]}
        whole = held_out_ranks(scorer, parts, "optimistic")["test"]
        pieces = held_out_ranks(scorer, parts, "optimistic", chunk_size=1)["test"]
        assert np.array_equal(whole, pieces)
        table = recommend(model, ds, k=ds.num_items)
        place = {(row.user, row.item): row.rank for row in table.itertuples()}
        for user, item, rank in zip(parts["test"].user, parts["test"].item, whole, strict=True):
            assert rank <= place[user, item]

    @pytest.mark.parametrize("count", [1, 2, 4])
    def test_any_number_of_behaviors(self, count: int) -> None:
        """A model takes 1, 2 and 4 behaviors, or says in one line which other model does."""
        names = ("view", "collect", "cart", "buy")[-count:]
        ds = toy_dataset(names)
        if count == 1 and self.needs_auxiliary:
            with pytest.raises(UsageError, match="--model"):
                self.build(ds)
            return
        model = self.ready(ds)
        assert model.behaviors == tuple(name for name in names if name in model.behaviors)
        assert self.scores(model).shape == (ds.num_users, ds.num_items)

    def test_the_order_of_behaviors_is_the_dataset_s(self) -> None:
        """Not the alphabet's: a model of ``dataset.graph`` reads them in the dataset's order, the target last."""
        ds = toy_dataset(("zoom", "add", "buy"))
        model = self.kind(ds.graph, ds.target, **self.small())
        assert model.behaviors in (("zoom", "add", "buy"), ("buy",))
        encoded = getattr(model, "encode", None)
        if model.trainable and encoded is not None:
            assert tuple(model.encode().behaviors) == model.behaviors or not model.encode().behaviors

    def test_a_foreign_dataset_is_refused(self) -> None:
        """Evaluation and recommendation with other train edges than the model's are one-line errors."""
        ds, other = toy_dataset(self.behaviors), toy_dataset(self.behaviors, seed=5)
        model = self.ready(ds)
        with pytest.raises(DataError, match=r"was built on other .* edges"):
            evaluate(model, other)
        with pytest.raises(DataError, match=r"was built on other .* edges"):
            recommend(model, other, k=2)

    def test_a_graph_of_another_size_is_refused(self) -> None:
        """Scoring from a graph over other nodes is a one-line error."""
        ds = toy_dataset(self.behaviors)
        fewer = ds.replace(
            items=Vocabulary(size=_ITEMS - 1, kind="item"), users=Vocabulary(size=_USERS - 1, kind="user"), splits={}
        )
        with pytest.raises(UsageError, match=r"the graph has 23 users and 16 items, the model 24 and 17"):
            self.build(ds).scorer(fewer.graph)

    def test_copies_are_equal(self) -> None:
        """Deep copies and pickles score alike, before and after a first use."""
        ds = toy_dataset(self.behaviors)
        model = self.ready(ds)
        fresh = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        expected = self.scores(model)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        used = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)]
        for twin in (*fresh, *used):
            assert torch.equal(self.scores(twin), expected)

    def test_options_rebuild_the_model(self) -> None:
        """The resolved options as plain values make the same model again."""
        ds = toy_dataset(self.behaviors)
        model = self.ready(ds)
        again = self.kind(ds.graph, ds.target, rng=1, **self.kind.Options(**model.options.plain()).values())
        assert again.options == model.options
        if again.learns:
            again.learn(ds)
        assert torch.equal(self.scores(again), self.scores(model))


class LearnedRecommenderCases(RecommenderCases):
    """For models that learn in one go."""

    def test_learning_is_reproducible(self) -> None:
        """Two models of one seed come to the same weights and scores, and so does one that learns again."""
        ds = toy_dataset(self.behaviors)
        one, two = self.ready(ds), self.ready(ds)
        two.learn(ds)
        for name, value in one.state_dict().items():
            assert torch.equal(value, two.state_dict()[name]), name
        assert torch.equal(self.scores(one), self.scores(two))

    def test_state_is_saved_and_loaded(self) -> None:
        """A state dict carries all that was learned."""
        ds = toy_dataset(self.behaviors)
        learned, twin = self.ready(ds), self.build(ds)
        twin.load_state_dict(learned.state_dict())
        assert torch.equal(self.scores(twin), self.scores(learned))

    def test_it_gives_no_scores_before_it_has_learned(self) -> None:
        """One line says what to call."""
        with pytest.raises(UsageError, match=r"has not learned yet; call model.learn\(dataset\)"):
            self.build(toy_dataset(self.behaviors)).scorer()

    def test_pairs_of_the_test_split_are_not_read(self) -> None:
        """Other test pairs, other nothing."""
        ds = toy_dataset(self.behaviors)
        bare = ds.replace(splits={"valid": ds.valid})
        assert torch.equal(self.scores(self.ready(ds)), self.scores(self.ready(bare)))

    def test_it_reads_the_graph_it_is_given(self) -> None:
        """Another user's pair of a shared item changes scores."""
        ds = toy_dataset(self.behaviors)
        fewer = ds.replace(edges={**ds.edges, ds.target: ds.edges[ds.target][1:]})
        model = self.ready(ds)
        with torch.no_grad():
            changed = model.scorer(fewer.graph).scores(torch.arange(ds.num_users))
        assert not torch.allclose(self.scores(model), changed)

    def test_a_foreign_dataset_is_not_learned(self) -> None:
        """It would learn from held-out pairs."""
        ds, other = toy_dataset(self.behaviors), toy_dataset(self.behaviors, seed=5)
        with pytest.raises(DataError, match=r"was built on other .* edges"):
            self.build(ds).learn(other)

    def test_it_beats_popularity_on_the_demo_data(self) -> None:
        """On test pairs."""
        ds = load_dataset("demo")
        popular, model = MODELS.get("popularity")(ds.graph, ds.target), self.ready(ds)
        found = [evaluate(each, ds, k=(10,)).metrics["HR@10"] for each in (popular, model)]
        assert found[1] > found[0]


class TrainedRecommenderCases(TrainedDeviceCases, RecommenderCases):
    """For models that train. ``training`` changes options of the trainer for the longer runs."""

    training: ClassVar[dict[str, Any]] = {}
    demo_epochs: ClassVar[int] = 15
    demo_options: ClassVar[dict[str, Any]] = {}
    _fitted: ClassVar[Trainer]

    def trainer(self, ds: MultiBehaviorDataset, rng: int = 3, **changes: Any) -> Trainer:
        """Return a trainer of three short epochs."""
        options = {"epochs": 3, "batch_size": 7, "diagnose_every": 0, "device": "cpu", **self.training, **changes}
        return Trainer(self.build(ds), ds, rng=rng, **options)

    def fitted(self) -> Trainer:
        """Return a trainer at the end of its epochs, which the tests of a class share: look, do not touch."""
        kept = vars(type(self)).get("_fitted")
        if kept is None:
            kept = self.trainer(toy_dataset(self.behaviors))
            kept.fit()
            type(self)._fitted = kept
        return kept

    def first_step(self, model: Recommender, ds: MultiBehaviorDataset) -> tuple[Any, StepContext]:
        """Return the first batch of an epoch and its context."""
        context = StepContext(1, 0, 3)
        training = model.options.training().replace(batch_size=7)
        model.prepare(ds)
        model.begin_epoch(context)
        return next(iter(model.batches(ds, training, 3).epoch(1))), context

    def objective(self, model: Recommender, batch: Any, context: StepContext) -> dict[str, Tensor]:
        """Return the weighted terms of a step."""
        outputs = model(batch, context)
        terms = dict(outputs.losses)
        for regularizer in model.options.regularizers():
            terms[regularizer.term] = regularizer.weight * regularizer(outputs)
        return terms

    def test_every_parameter_has_a_finite_gradient(self) -> None:
        """And a gradient that is not zero."""
        ds = toy_dataset(self.behaviors)
        model = self.build(ds)
        terms = self.objective(model, *self.first_step(model, ds))
        torch.stack(list(terms.values())).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert bool(parameter.grad.any()), name

    def test_a_step_leaves_memory_with_its_outputs(self) -> None:
        """Entries that nobody read keep nothing alive: the garbage collector is no part of a step."""
        ds = toy_dataset(self.behaviors)
        model = self.build(ds)
        outputs = model(*self.first_step(model, ds))
        left = weakref.ref(outputs)
        gc.disable()
        try:
            del outputs
            assert left() is None, "a cycle of references holds the step: no entry may read the outputs that it is in"
        finally:
            gc.enable()

    def test_one_hop_changes_the_output(self) -> None:
        """Messages pass: another user's edge to a shared item changes a user's scores."""
        ds = toy_dataset(self.behaviors)
        target = ds.edges[ds.target]
        fewer = ds.replace(edges={**ds.edges, ds.target: target[1:]})
        model = self.build(ds)
        with torch.no_grad():
            changed = model.scorer(fewer.graph).scores(torch.arange(ds.num_users))
        assert not torch.allclose(self.scores(model), changed)

    def test_a_step_in_a_block_reads_nothing_else(self) -> None:
        """Where a model says that it reads blocks, whoever asks the rest of the graph for a sum is found out."""
        ds = toy_dataset(self.behaviors)
        if not self.kind.reads_blocks:
            with pytest.raises(UsageError, match="reads the whole graph in a step and knows no block_users"):
                self.trainer(ds, block_users=5)
            return
        model = self.build(ds)
        batch, context = self.first_step(model, ds)
        block = Block(batch.users[:5])

        def guarded(method: str) -> Any:
            real = getattr(Relation, method)

            def checked(relation: Relation, *arguments: Any) -> Any:
                assert block.holds(relation), "the whole graph was read"
                return real(relation, *arguments)

            return checked

        with pytest.MonkeyPatch.context() as patch:
            for method in ("operator", "_sum"):  # what compiled kernels read, and what torch does
                patch.setattr(Relation, method, guarded(method))
            with reading(block):
                terms = self.objective(model, batch, context)
            torch.stack(list(terms.values())).sum().backward()
            with pytest.raises(AssertionError, match="the whole graph was read"):
                self.objective(model, batch, context)

    def test_training_is_reproducible(self) -> None:
        """Same seed, same numbers; another seed, others."""
        fitted = self.fitted()
        ds = toy_dataset(self.behaviors)
        again, other = self.trainer(ds), self.trainer(ds, rng=4, epochs=1)
        for run in (again, other):
            run.fit()
        one, two, three = ([record["terms"] for record in run.records] for run in (fitted, again, other))
        assert one == two
        assert one[:1] != three
        assert torch.equal(self.scores(fitted.model), self.scores(again.model))

    def test_a_diagnosis_changes_nothing(self) -> None:
        """Recording gradient norms in every epoch leaves every number as it is."""
        fitted = self.fitted()
        diagnosed = self.trainer(toy_dataset(self.behaviors), diagnose_every=1)
        diagnosed.fit()
        assert [record["terms"] for record in fitted.records] == [record["terms"] for record in diagnosed.records]
        assert all(record["gradient_norms"] for record in diagnosed.records)
        assert torch.equal(self.scores(fitted.model), self.scores(diagnosed.model))

    def test_a_resumed_run_ends_at_the_same_numbers(self, tmp_path: Path) -> None:
        """Stopped after an epoch and taken up by a new process' objects."""
        fitted = self.fitted()
        ds = toy_dataset(self.behaviors)
        self.trainer(ds, epochs=1, directory=tmp_path).fit()
        resumed = self.trainer(ds, directory=tmp_path)
        resumed.fit(resume=True)
        for one, two in itertools.zip_longest(fitted.records, resumed.records):
            assert (one["terms"], one["valid"]) == (two["terms"], two["valid"])
        assert torch.equal(self.scores(fitted.model), self.scores(resumed.model))
        for one, two in zip(fitted.model.parameters(), resumed.model.parameters(), strict=True):
            assert torch.equal(one, two)

    def test_state_is_saved_and_loaded(self) -> None:
        """A state dict carries all that training changes."""
        fitted = self.fitted()
        twin = self.build(toy_dataset(self.behaviors), rng=9)
        twin.load_state_dict(fitted.model.state_dict())
        assert torch.equal(self.scores(twin), self.scores(fitted.model))

    def test_copies_go_on_alike(self) -> None:
        """A copy of a trained model takes the same next step."""
        fitted = self.fitted()
        trained = copy.deepcopy(fitted.model)
        batch, context = self.first_step(trained, toy_dataset(self.behaviors))
        twin = copy.deepcopy(trained)
        expected = {name: float(term.detach()) for name, term in self.objective(trained, batch, context).items()}
        for model in (twin, pickle.loads(pickle.dumps(twin))):
            made = {name: float(term.detach()) for name, term in self.objective(model, batch, context).items()}
            assert made == expected

    def test_a_batch_without_triples_contributes_nothing(self) -> None:
        """No term is NaN, and training goes on."""
        ds = toy_dataset(self.behaviors)
        model = self.build(ds)
        batch, context = self.first_step(model, ds)
        terms = self.objective(model, batch.emptied(), context)
        assert all(math.isfinite(float(term.detach())) for term in terms.values())
        model.update_rule(model.options.training()).step(terms)

    def test_a_foreign_dataset_is_not_trained_on(self) -> None:
        """The trainer refuses a model of other train edges: it would train on held-out pairs."""
        ds, other = toy_dataset(self.behaviors), toy_dataset(self.behaviors, seed=5)
        with pytest.raises(DataError, match=r"was built on other .* edges"):
            Trainer(self.build(ds), other, device="cpu")

    compiler: ClassVar[str] = "eager"
    """Backend of the case below. This one traces the step, which is where graphs break; ``aot_eager`` traces the
    derivative as well, in three times the time."""

    def test_the_step_compiles_without_breaks(self) -> None:
        """``torch.compile(fullgraph=True)`` takes the step with its own losses, and gives the same numbers."""
        if torch.__version__ < COMPILING_TORCH:
            pytest.skip("earlier torch breaks the graph at mappings and iterators")
        ds = toy_dataset(self.behaviors)
        model = self.build(ds)
        batch, context = self.first_step(model, ds)
        expected = self.losses(model, batch, context)
        torch._dynamo.reset()
        compiled = torch.compile(self.losses, fullgraph=True, dynamic=False, backend=self.compiler)
        made = compiled(model, batch, context)
        assert torch.allclose(made, expected, rtol=1e-4, atol=1e-6)
        made.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    @staticmethod
    def losses(model: Recommender, batch: Any, context: StepContext) -> Tensor:
        """Return the sum of the model's own losses."""
        return torch.stack(list(model.step(batch, context).losses.values())).sum()

    def test_it_beats_popularity_on_the_demo_data(self) -> None:
        """In few epochs, on validation pairs; training ends once it does."""
        ds = load_dataset("demo")
        popular = evaluate(MODELS.get("popularity")(ds.graph, ds.target), ds, split="valid", k=(10,)).metrics["HR@10"]
        model = self.kind(ds.graph, ds.target, rng=1, **{**self.options, **self.demo_options})
        trainer = Trainer(model, ds, rng=1, epochs=self.demo_epochs, diagnose_every=0, device="cpu")
        best = 0.0
        for epoch in range(1, self.demo_epochs + 1):
            trainer.train_epoch(epoch)
            best = max(best, evaluate(model.eval(), ds, split="valid", k=(10,)).metrics["HR@10"])
            if best > popular:
                return
        pytest.fail(f"HR@10 of {best:.4f} after {self.demo_epochs} epochs, popularity has {popular:.4f}")


def recommender_cases() -> dict[str, type[RecommenderCases]]:
    """Return a test class for every registered model, by name: ``globals().update(recommender_cases())``."""
    made: dict[str, type[RecommenderCases]] = {}
    for name in MODELS:
        kind = MODELS.get(name)
        base: type[RecommenderCases] = TrainedRecommenderCases if kind.trainable else RecommenderCases
        base = LearnedRecommenderCases if kind.learns else base
        title = "Test" + "".join(part.capitalize() for part in name.split("-"))
        entries = {"model": name, "__doc__": f"Conformance of {name}.", **_CASES.get(name, {})}
        made[title] = type(title, (base,), entries)
    return made
