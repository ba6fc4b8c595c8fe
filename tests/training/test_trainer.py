"""The trainer: what it minimises, what it never sees, and what survives a kill."""

import json
import signal

import numpy as np
import pytest
import torch

from mbgraph.errors import RunError, UnknownNameError, UsageError
from mbgraph.models import LightGCN, Popularity, RMBRec
from mbgraph.regularizers import L2, InfoNCE, Regularizer, REx
from mbgraph.training import Callback, EarlyStopping, Trainer
from mbgraph.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def dataset(small):
    return small


def make(dataset, **options):
    model = RMBRec(dataset.graph, dataset.target, embedding_dim=8, num_layers=2, rng=5)
    return Trainer(model, dataset, **{"epochs": 4, "batch_size": 64, "rng": 5, "lr": 0.01, **options})


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def numbers(history):
    """Records without times."""
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def test_the_loss_falls_and_every_term_is_logged(dataset):
    result = make(dataset, epochs=12).fit()
    totals = [record["terms"]["total"] for record in result.history]
    assert totals[-1] < 0.8 * totals[0]
    assert set(result.history[0]["terms"]) == {"main", "infonce", "rex", "l2", "total"}
    assert set(result.history[0]["gradient_norms"]) == {"main", "infonce", "rex", "l2"}
    assert all(value > 0 for value in result.history[0]["gradient_norms"].values())


def test_one_step_is_adam_on_the_sum_of_weighted_terms(dataset):
    trainer = make(dataset, batch_size=1000, epochs=1, weight_decay=0.003, diagnose_every=0)
    model = RMBRec(dataset.graph, dataset.target, embedding_dim=8, num_layers=2, rng=5)
    (batch,) = trainer.sampler.epoch(1)
    outputs = model.step(batch)
    total = outputs.losses["main"] + InfoNCE()(outputs) + REx()(outputs) + 1e-3 * L2()(outputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.003)
    total.backward()
    optimizer.step()
    trainer.fit()
    expected = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    torch.testing.assert_close(weights(trainer), expected, rtol=1e-5, atol=1e-6)


def test_weight_zero_leaves_training_bit_identical(dataset):
    without = make(dataset, regularizers=[InfoNCE()])
    zero = make(dataset, regularizers=[InfoNCE(), REx(weight=0.0)])
    asleep = make(dataset, regularizers=[InfoNCE(), REx(schedule=lambda epoch: 0.0)])
    for trainer in (without, zero, asleep):
        trainer.fit()
    assert torch.equal(weights(without), weights(zero))
    assert torch.equal(weights(without), weights(asleep))


def test_same_seed_same_numbers_other_seed_other_numbers(dataset):
    histories = [make(dataset, rng=seed).fit().history for seed in (5, 5, 6)]
    assert numbers(histories[0]) == numbers(histories[1])
    assert numbers(histories[0]) != numbers(histories[2])


def test_the_test_split_is_never_read(dataset):
    """Replacing the test pairs by other pairs, or by none, changes nothing in training or selection."""
    other = dataset.replace(splits={"valid": dataset.valid})
    first, second = make(dataset), make(other)
    assert numbers(first.fit().history) == numbers(second.fit().history)
    assert torch.equal(weights(first), weights(second))


def test_the_model_ends_with_the_best_epoch(dataset):
    result_weights = {}

    class Remember(Callback):
        def on_epoch_end(self, trainer, record):
            result_weights[record["epoch"]] = weights(trainer).clone()

    trainer = make(dataset, epochs=10, callbacks=[Remember()])
    result = trainer.fit()
    values = [record["valid"]["HR@10"] for record in result.history]
    assert result.best_epoch == int(np.argmax(values)) + 1  # the first of equals: better means strictly larger
    assert torch.equal(weights(trainer), result_weights[result.best_epoch])


def test_early_stopping_waits_for_patience_epochs():
    stopping = EarlyStopping(2)
    seen = []
    for epoch, value in enumerate([0.1, 0.3, 0.3, 0.2, 0.25, 0.9], start=1):
        stopping.update(epoch, value)
        seen.append(stopping.should_stop(epoch))
    assert seen == [False, False, False, False, True, False]
    again = EarlyStopping(2)
    again.load_state_dict(stopping.state_dict())
    assert (again.best_epoch, again.best_value) == (6, 0.9)
    with pytest.raises(UsageError, match="patience must not be negative"):
        EarlyStopping(-1)


def test_without_validation_it_runs_all_epochs(dataset):
    trainer = make(dataset.replace(splits={"test": dataset.test}), epochs=3, patience=0)
    result = trainer.fit()
    assert (result.epochs, result.best_epoch) == (3, 3)
    assert "valid" not in result.history[0]


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_resume_reaches_the_same_numbers(dataset, tmp_path, stop_after):
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
    assert numbers(lines) == numbers(json.loads(json.dumps(whole.history)))
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def _made(folder):
    folder.mkdir()
    return folder


def test_interrupt_leaves_a_usable_model(dataset, tmp_path):
    class Interrupt(Callback):
        def on_step_end(self, trainer, step, terms):
            if trainer.epoch == 2:
                raise KeyboardInterrupt

    result = make(dataset, directory=tmp_path, callbacks=[Interrupt()]).fit()
    assert result.interrupted
    assert result.epochs == 2
    assert (tmp_path / "model.safetensors").exists()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["epoch"] == 2


def test_ctrl_c_waits_for_the_end_of_the_step(dataset):
    class PressedInTheMiddle(L2):
        calls = 0

        def __call__(self, outputs):
            self.calls += 1
            if self.calls == 4:
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


def test_nan_stops_names_the_term_and_keeps_the_checkpoint(dataset, tmp_path):
    class Explode(Regularizer):
        name = "explode"

        def __call__(self, outputs):
            return outputs.losses["main"] * float("nan")

    trainer = make(dataset, directory=tmp_path, regularizers=[Explode(schedule=lambda epoch: float(epoch > 2))])
    with pytest.raises(RunError, match=r"term 'explode' became nan in epoch 3, step 1; lower --lr"):
        trainer.fit()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["epoch"] == 2


def test_lightgcn_trains_per_edge_on_the_target_alone(dataset):
    model = LightGCN(dataset.graph, dataset.target, embedding_dim=8, rng=1)
    trainer = Trainer(model, dataset, epochs=2, rng=1)
    assert trainer.sampler.mode == "per-edge"
    assert set(trainer.fit().history[0]["terms"]) == {"main", "l2", "total"}


def test_any_regularizer_attaches_to_another_model(dataset):
    model = LightGCN(dataset.graph, dataset.target, embedding_dim=8, rng=1)
    history = Trainer(model, dataset, [L2(on="tables"), REx()], epochs=1, rng=1).fit().history
    assert history[0]["terms"]["rex"] == 0  # one environment has no variance


def test_checkpoints_hold_no_code(tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("executed",))

    save_checkpoint(tmp_path / "good.pt", {"epoch": 1})
    assert load_checkpoint(tmp_path / "good.pt")["epoch"] == 1
    torch.save({"format": 1, "x": Payload()}, tmp_path / "bad.pt")
    with pytest.raises(RunError, match=r"cannot read checkpoint .*bad.pt"):
        load_checkpoint(tmp_path / "bad.pt")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "good.pt").read_bytes()[:100])
    with pytest.raises(RunError, match=r"cannot read checkpoint .*torn.pt"):
        load_checkpoint(tmp_path / "torn.pt")
    with pytest.raises(RunError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.pt")
    torch.save({"format": 99}, tmp_path / "new.pt")
    with pytest.raises(RunError, match="has another format than 1"):
        load_checkpoint(tmp_path / "new.pt")


def test_errors(dataset, tmp_path):
    for options, message in (
        ({"epochs": 0}, "epochs must be positive"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"metric": "HR"}, "has no cut-off"),
        ({"device": "gpu"}, "unknown device 'gpu'; choose auto, cpu or cuda"),
        ({"regularizers": [REx(), REx()]}, "two regularizers share a name"),
    ):
        with pytest.raises(UsageError, match=message):
            make(dataset, **options)
    with pytest.raises(UsageError, match="unknown metric 'HRR@10'; choose from"):
        make(dataset, metric="HRR@10").fit()
    with pytest.raises(UsageError, match="is not trained"):
        Trainer(Popularity(dataset.graph, dataset.target), dataset)
    with pytest.raises(UsageError, match="nothing to resume from"):
        make(dataset).fit(resume=True)
    with pytest.raises(UnknownNameError, match="did you mean 'per-user'"):
        make(dataset, sampler="peruser")
    make(dataset, epochs=1, directory=tmp_path).fit()
    with pytest.raises(RunError, match="made with seed 5, not 6"):
        make(dataset, rng=6, directory=tmp_path).fit(resume=True)
