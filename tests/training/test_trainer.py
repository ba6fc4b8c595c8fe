"""The trainer: what it minimises, what it never sees, and what survives a kill."""

import json
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError, RunError, UnknownNameError, UsageError
from mbgraph.evaluation.evaluate import evaluate
from mbgraph.evaluation.options import EvaluationOptions
from mbgraph.models import LightGCN, Popularity, RMBRec, StepContext, TrainingOptions
from mbgraph.regularizers import L2, InfoNCE, Regularizer, REx
from mbgraph.training import Callback, Trainer
from mbgraph.training.checkpoint import load_checkpoint


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def numbers(history):
    """Records without times."""
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def test_the_loss_falls_and_every_term_is_logged(dataset, make):
    result = make(dataset, epochs=12).fit()
    totals = [record["terms"]["total"] for record in result.records]
    assert totals[-1] < 0.8 * totals[0]
    assert set(result.records[0]["terms"]) == {"main", "infonce", "rex", "l2", "total"}
    assert set(result.records[0]["gradient_norms"]) == {"main", "infonce", "rex", "l2"}
    assert all(value > 0 for value in result.records[0]["gradient_norms"].values())
    assert all(0 < value < 300 for record in result.records for value in record["seconds"].values())


def test_one_step_is_adam_on_the_sum_of_weighted_terms(dataset, make):
    trainer = make(dataset, batch_size=1000, epochs=1, weight_decay=0.003, diagnose_every=0)
    model = RMBRec(dataset.graph, dataset.target, embedding_dim=8, num_layers=2, rng=5)
    (batch,) = trainer.batches.epoch(1)
    outputs = model.step(batch, StepContext(1, 0, 5))
    total = outputs.losses["main"] + InfoNCE()(outputs) + REx()(outputs) + 1e-3 * L2()(outputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.003)
    total.backward()
    optimizer.step()
    trainer.fit()
    expected = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    torch.testing.assert_close(weights(trainer), expected, rtol=1e-5, atol=1e-6)


def test_weight_zero_leaves_training_bit_identical(dataset, make):
    without = make(dataset, regularizers=[InfoNCE()])
    zero = make(dataset, regularizers=[InfoNCE(), REx(weight=0.0)])
    asleep = make(dataset, regularizers=[InfoNCE(), REx(schedule=lambda epoch: 0.0)])
    for trainer in (without, zero, asleep):
        trainer.fit()
    assert torch.equal(weights(without), weights(zero))
    assert torch.equal(weights(without), weights(asleep))


def test_same_seed_same_numbers_other_seed_other_numbers(dataset, make):
    histories = [make(dataset, rng=seed).fit().records for seed in (5, 5, 6)]
    assert numbers(histories[0]) == numbers(histories[1])
    assert numbers(histories[0]) != numbers(histories[2])


def test_the_test_split_is_never_read(dataset, make):
    """Replacing the test pairs by other pairs, or by none, changes nothing in training or selection."""
    other = dataset.replace(splits={"valid": dataset.valid})
    first, second = make(dataset), make(other)
    assert numbers(first.fit().records) == numbers(second.fit().records)
    assert torch.equal(weights(first), weights(second))


def test_the_model_ends_with_the_best_epoch(dataset, make):
    result_weights = {}

    class Remember(Callback):
        def on_epoch_end(self, trainer, record):
            result_weights[record["epoch"]] = weights(trainer).clone()

    trainer = make(dataset, epochs=10, callbacks=[Remember()])
    result = trainer.fit()
    values = [record["valid"]["HR@10"] for record in result.records]
    assert result.best_epoch == int(np.argmax(values)) + 1  # the first of equals: better means strictly larger
    assert torch.equal(weights(trainer), result_weights[result.best_epoch])


def test_without_validation_it_runs_all_epochs(dataset, make):
    trainer = make(dataset.replace(splits={"test": dataset.test}), epochs=3, patience=0)
    result = trainer.fit()
    assert (result.epochs, result.best_epoch, result.interrupted) == (3, 3, False)
    assert "valid" not in result.records[0]


def test_one_validation_pair_is_enough_to_select_by(dataset, make):
    alone = dataset.replace(splits={"valid": dataset.valid[:1], "test": dataset.test})
    trainer = make(alone, epochs=2)
    assert trainer.has_validation
    assert all(record["valid"]["HR@10"] in (0, 1) for record in trainer.fit().records)


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_resume_reaches_the_same_numbers(dataset, tmp_path, stop_after, make):
    """A run cut after any epoch, even between checkpoint and log, ends bit-equal to an uninterrupted one."""
    whole = make(dataset, epochs=5, directory=_made(tmp_path / "whole"))
    whole.fit()
    folder = _made(tmp_path / "cut")
    if stop_after:
        make(dataset, epochs=stop_after, directory=folder).fit()
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"epoch": 99, "torn')
        (folder / "model.safetensors").unlink()
    again = make(dataset, epochs=5, directory=folder)
    again.fit(resume=stop_after > 0)
    assert torch.equal(weights(again), weights(whole))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert numbers(lines) == numbers(json.loads(json.dumps(whole.records)))
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def _made(folder):
    folder.mkdir()
    return folder


def test_interrupt_leaves_a_usable_model(dataset, tmp_path, make):
    class Interrupt(Callback):
        def on_step_end(self, trainer, step, terms):
            if trainer.epoch == 2:
                raise KeyboardInterrupt

    result = make(dataset, directory=tmp_path, callbacks=[Interrupt()]).fit()
    assert result.interrupted
    assert result.epochs == 2
    assert (tmp_path / "model.safetensors").exists()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["epoch"] == 2


def test_ctrl_c_waits_for_the_end_of_the_step(dataset, make):
    calls = []

    class PressedInTheMiddle(L2):
        def __call__(self, outputs):
            calls.append(1)
            if len(calls) == 4:
                signal.raise_signal(signal.SIGINT)
            return super().__call__(outputs)

    class Count(Callback):
        steps = 0

        def on_step_end(self, trainer, step, terms):
            self.steps += 1

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        count = Count()
        result = make(dataset, regularizers=[PressedInTheMiddle()], callbacks=[count], diagnose_every=0).fit()
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.interrupted
    assert count.steps == 4
    assert result.epochs == 1  # the second epoch ends with this step, but was not validated


def test_nan_stops_names_the_term_and_keeps_the_checkpoint(dataset, tmp_path, make):
    class Explode(Regularizer):
        name = "explode"

        def __call__(self, outputs):
            return outputs.losses["main"] * float("nan")

    trainer = make(dataset, directory=tmp_path, regularizers=[Explode(schedule=lambda epoch: float(epoch > 2))])
    with pytest.raises(RunError, match=r"term 'explode' became nan in epoch 3, step 1; lower --lr"):
        trainer.fit()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["epoch"] == 2


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_infinity_stops_too(dataset, value, make):
    class Explode(Regularizer):
        name = "explode"

        def __call__(self, outputs):
            return outputs.losses["main"] * value

    with pytest.raises(RunError, match=rf"term 'explode' became {value} in epoch 1, step 1; lower --lr"):
        make(dataset, regularizers=[Explode()], diagnose_every=0).fit()


def test_lightgcn_trains_on_as_many_users_as_edges_and_on_the_target_alone(dataset):
    model = LightGCN(dataset.graph, dataset.target, embedding_dim=8, rng=1)
    trainer = Trainer(model, dataset, epochs=2, rng=1)
    assert (trainer.training.sampler, trainer.training.history) == ("with-replacement", "target")
    (batch,) = trainer.batches.epoch(1)
    assert len(batch) == len(dataset.edges[dataset.target])
    assert set(trainer.fit().records[0]["terms"]) == {"main", "l2", "total"}


def test_any_regularizer_attaches_to_another_model(dataset):
    model = LightGCN(dataset.graph, dataset.target, embedding_dim=8, rng=1)
    history = Trainer(model, dataset, [L2(on="tables"), REx()], epochs=1, rng=1).fit().records
    assert history[0]["terms"]["rex"] == 0  # one environment has no variance


def test_logged_terms_are_means_over_the_steps(dataset, make):
    class Remember(Callback):
        steps = []  # noqa: RUF012

        def on_step_end(self, trainer, step, terms):
            self.steps.append(terms)

    trainer = make(dataset, epochs=1, batch_size=50, callbacks=[Remember()])
    (record,) = trainer.fit().records
    assert len(Remember.steps) == trainer.steps_per_epoch == 3
    for name, value in record["terms"].items():
        assert value == pytest.approx(np.mean([terms[name] for terms in Remember.steps]), rel=1e-12)
    for terms in Remember.steps:
        assert terms["total"] == pytest.approx(sum(terms.values()) - terms["total"], rel=1e-12)


@pytest.mark.parametrize(("mask", "ties"), [("all-behaviors", "pessimistic"), ("none", "optimistic")])
def test_validation_masks_and_breaks_ties_as_told(dataset, monkeypatch, mask, ties, make):
    """The figures are those of an evaluation with the same options, which differ from those of the defaults."""
    flat = lambda graph=None: _Flat(dataset.num_users, dataset.num_items)  # noqa: E731
    trainer = make(dataset, epochs=1, evaluation=EvaluationOptions(mask=mask, ties=ties, metric="MRR@50"))
    monkeypatch.setattr(trainer.model, "scorer", flat)
    (record,) = trainer.fit().records
    assert record["valid"] == evaluate(flat(), dataset, "valid", (50,), mask, ties).metrics
    for other in ((mask, "realistic"), ("train-target", ties)):
        assert record["valid"] != evaluate(flat(), dataset, "valid", (50,), *other).metrics


class _Flat:
    """Four scores for all items: most tie."""

    def __init__(self, num_users, num_items):
        self.num_users, self.num_items = num_users, num_items

    def scores(self, users):
        return ((7 * users[:, None] + torch.arange(self.num_items)) % 4).float()


class Scripted:
    """Stands for the evaluation: the validation metric of each epoch in turn."""

    def __init__(self, values):
        self.values = list(values)

    def __call__(self, *_, **__):
        return SimpleNamespace(metrics={"HR@10": self.values.pop(0)})


@pytest.mark.parametrize("cut", [2, 3, 4])
def test_a_run_cut_after_its_best_epoch_ends_with_that_epoch(dataset, tmp_path, monkeypatch, cut, make):
    """The weights of the best epoch come from the checkpoint, where nothing after the cut is better."""
    values = [0.1, 0.5, 0.3, 0.4, 0.2]
    remembered = {}

    class Remember(Callback):
        def on_epoch_end(self, trainer, record):
            remembered[record["epoch"]] = weights(trainer).clone()

    def scripted(first, last):
        monkeypatch.setattr("mbgraph.training.trainer.evaluate", Scripted(values[first:last]))

    scripted(0, cut)
    make(dataset, epochs=cut, directory=tmp_path, callbacks=[Remember()]).fit()
    scripted(cut, 5)
    again = make(dataset, epochs=5, directory=tmp_path, callbacks=[Remember()])
    result = again.fit(resume=True)
    assert (result.epochs, result.best_epoch) == (5, 2)
    assert [record["best_epoch"] for record in result.records] == [1, 2, 2, 2, 2]
    assert torch.equal(weights(again), remembered[2])
    assert not torch.equal(weights(again), remembered[5])


def test_a_finished_run_may_be_extended(dataset, tmp_path, make):
    make(dataset, epochs=2, directory=tmp_path).fit()
    longer, whole = make(dataset, epochs=4, directory=tmp_path), make(dataset, epochs=4)
    assert longer.fit(resume=True).epochs == 4
    whole.fit()
    assert torch.equal(weights(longer), weights(whole))


def test_patience_counts_across_a_resume(dataset, tmp_path, monkeypatch, make):
    monkeypatch.setattr("mbgraph.training.trainer.evaluate", Scripted([0.5, 0.3, 0.2, 0.1, 0.1, 0.1]))
    make(dataset, epochs=3, patience=3, directory=tmp_path).fit()
    assert make(dataset, epochs=9, patience=3, directory=tmp_path).fit(resume=True).epochs == 5  # 5 - 1 > 3


def test_options_come_as_sections_or_one_by_one(dataset, make):
    whole = make(dataset, training=TrainingOptions(epochs=9, patience=3), evaluation=EvaluationOptions(metric="MRR@5"))
    assert (whole.training.epochs, whole.training.patience) == (4, 3)  # what is named alone counts more
    assert (whole.training.weight_decay, whole.metric) == (0.0, "MRR@5")
    own = make(dataset, metric="NDCG@20", mask="none")
    assert own.training.weight_decay == 1e-3  # the model's
    assert (own.evaluation.metric, own.evaluation.mask, own.evaluation.ties) == ("NDCG@20", "none", "realistic")


def test_a_cutoff_beyond_the_catalogue_is_cut(tiny):
    model = LightGCN(tiny.graph, tiny.target, embedding_dim=8)
    trainer = Trainer(model, tiny, epochs=1, metric="HR@50")
    assert trainer.metric == "HR@5"
    assert trainer.fit().records[0]["valid"]["HR@5"] == 1.0


# --- steps without triples ------------------------------------------------------------------------------------------


def crowded(num_users=1025, num_items=10, share=0.4):
    """Users of whom two in five touched everything: they have no negative, so a batch of one may hold no triple."""
    rng = np.random.default_rng(0)
    views = rng.random((num_users, num_items)) < 0.3
    views[: int(share * num_users)] = True
    buys = np.zeros_like(views)
    buys[np.arange(num_users), rng.integers(0, num_items, num_users)] = True
    return MultiBehaviorDataset(
        "crowded",
        Vocabulary(size=num_users, kind="user"),
        Vocabulary(size=num_items, kind="item"),
        {"view": Pairs(*np.nonzero(views)), "buy": Pairs(*np.nonzero(buys))},
        "buy",
    )


@pytest.mark.parametrize("kind", [RMBRec, LightGCN])
def test_a_short_last_batch_without_triples_does_not_end_training(kind, tmp_path):
    """1,025 users in batches of 1,024: the last user alone is often one who touched everything."""
    ds = crowded()
    options = {"epochs": 8, "sampler": "per-user", "history": "all", "batch_size": 1024, "diagnose_every": 1, "rng": 2}

    def trainer(**changes):
        model = kind(ds.graph, ds.target, embedding_dim=8, num_layers=1, rng=1)
        return Trainer(model, ds, device="cpu", **{**options, **changes})

    empty = [
        epoch for epoch in range(1, 9) for batch in trainer().batches.epoch(epoch) if not len(batch.rows("buy")[0])
    ]
    assert len(empty) >= 2
    whole, resumed = trainer(), trainer(directory=tmp_path)
    history = whole.fit().records
    assert all(np.isfinite(list(record["terms"].values())).all() for record in history)
    trainer(directory=tmp_path, epochs=empty[0]).fit()
    resumed.fit(resume=True)
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("kind", [RMBRec, LightGCN])
def test_batches_of_one(kind):
    ds = crowded(num_users=30)
    model = kind(ds.graph, ds.target, embedding_dim=8, num_layers=1, rng=1)
    trainer = Trainer(model, ds, epochs=2, sampler="per-user", history="all", batch_size=1, diagnose_every=1, rng=1,
                      device="cpu")  # fmt: skip
    before = weights(trainer).clone()
    history = trainer.fit().records
    assert all(np.isfinite(list(record["terms"].values())).all() for record in history)
    assert not torch.equal(weights(trainer), before)


def test_a_step_without_triples_moves_nothing_but_what_acts_on_tables():
    """Momentum and coupled decay of the steps before would move rows that nothing was learned about."""
    ds = crowded(num_users=30)
    model = RMBRec(ds.graph, ds.target, embedding_dim=8, num_layers=1, rng=1)
    trainer = Trainer(model, ds, [InfoNCE(), REx(), L2()], epochs=1, batch_size=1, rng=1, device="cpu")
    assert trainer.training.weight_decay > 0
    batches = list(trainer.batches.epoch(1))
    nothing = next(batch for batch in batches if all(not len(batch.rows(name)[0]) for name in ("view", "buy")))
    terms = trainer.weighted_terms(nothing, StepContext())
    assert {name: float(term.detach()) for name, term in terms.items()} == dict.fromkeys(terms, 0.0)


def test_nobody_to_train_on_is_refused_before_training():
    """Everybody touched everything: the remedy is a smaller history, and it works."""
    ds = crowded(num_users=20, share=1.0)
    model = RMBRec(ds.graph, ds.target, embedding_dim=8)
    with pytest.raises(UsageError, match=r"nothing to train on; choose .* history=behavior or --set history=target"):
        Trainer(model, ds, device="cpu")
    assert Trainer(model, ds, epochs=1, history="behavior", device="cpu").fit().epochs == 1


def test_a_model_of_another_graph_is_refused(dataset):
    """Else it would train on the pairs that are held out."""
    buys = dataset.edges[dataset.target]
    fewer = dataset.replace(edges={**dataset.edges, dataset.target: buys[1:]}, splits={})
    model = RMBRec(dataset.graph, dataset.target, embedding_dim=8)
    with pytest.raises(DataError, match="was built on other 'buy' edges than the train edges of dataset 'small'"):
        Trainer(model, fewer)


def test_errors(dataset, tmp_path, make):
    for options, message in (
        ({"epochs": 0}, "epochs of the training options must be a whole number from 1 .*, got 0"),
        ({"lr": 0.0}, "lr of the training options must be a number above 0.*, got 0.0"),
        ({"metric": "HR"}, "metric 'HR' has no cut-off; write it as HR@10"),
        ({"device": "gpu"}, "unknown device 'gpu'; choose auto, cpu or cuda"),
        ({"regularizers": [REx(), REx()]}, "two regularizers share a name: rex, rex; give one of them a label"),
    ):
        with pytest.raises(UsageError, match=message):
            make(dataset, **options)
    with pytest.raises(UsageError, match="unknown metric 'HRR@?1?0?'; "):
        make(dataset, metric="HRR@10")
    with pytest.raises(UsageError, match="'popularity' is not trained; evaluate it as it is"):
        Trainer(Popularity(dataset.graph, dataset.target), dataset)
    with pytest.raises(UsageError, match="nothing to resume from; give the trainer the run's directory"):
        make(dataset).fit(resume=True)
    with pytest.raises(UnknownNameError, match="sampler of the training options 'peruser'; did you mean 'per-user'"):
        make(dataset, sampler="peruser")
    with pytest.raises(UnknownNameError, match="unknown option of the trainer 'epoch'; did you mean 'epochs'"):
        make(dataset, epoch=3)
    with pytest.raises(UsageError, match="a term 'main' of its own; give the regularizer another name: rex:label=.."):
        make(dataset, regularizers=[REx(label="main")]).fit()
    make(dataset, epochs=1, directory=tmp_path).fit()
    with pytest.raises(RunError, match="made with seed 5, not 6; resume with the same seed"):
        make(dataset, rng=6, directory=tmp_path).fit(resume=True)
    wider = RMBRec(dataset.graph, dataset.target, embedding_dim=16)
    with pytest.raises(RunError, match="belongs to another model .*; resume with the run's own configuration"):
        Trainer(wider, dataset, rng=5, directory=tmp_path).fit(resume=True)
