"""Which steps are recorded, and what a replay does: the same step on memory that stays, the same numbers."""

import pytest
import torch

from mbgraph.models import MODELS
from mbgraph.models.context import StepContext
from mbgraph.models.options import TrainingOptions
from mbgraph.models.rules import GradientBalance, UpdateRule
from mbgraph.testing.recommenders import toy_dataset
from mbgraph.training import Trainer, steps
from mbgraph.training.steps import Rerun, reason_against_recording

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
ASKED = TrainingOptions(record_steps=True)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (None, {}),
        ("nobody asked for it", {"training": TrainingOptions()}),
        ("there are no graphs of kernels on cpu", {"device": CPU}),
        ("processes exchange rows within a step", {"processes": 2}),
        ("every step reads other pairs of the graph (block_users)", {"training": ASKED.replace(block_users=9)}),
        ("the step size changes (lr_decay)", {"training": ASKED.replace(lr_decay=0.5)}),
        ("the model prepares every epoch anew", {"model": MODELS.get("mbssl")}),
        ("the update looks at gradients on the host", {"rule": GradientBalance}),
    ],
)
def test_the_decision_looks_at_facts_alone(reason, changes):
    facts = {"device": CUDA, "training": ASKED, "model": MODELS.get("rmbrec"), "rule": UpdateRule, "processes": 1}
    assert reason_against_recording(**{**facts, **changes}) == reason


def trained(name, recorder, ds=None, epochs=4, **options):
    ds = ds or toy_dataset()
    kind = MODELS.get(name)
    small = {"embedding_dim": 8, "num_layers": 2, **options.pop("model", {})}
    trainer = Trainer(
        kind(ds.graph, ds.target, rng=1, **small), ds, rng=3, device="cpu", diagnose_every=0, epochs=epochs,
        batch_size=8, **options,
    )  # fmt: skip
    trainer.steps.recorder = recorder
    trainer.fit()
    return trainer


def assert_same(one, two):
    assert [record["terms"] for record in one.records] == [record["terms"] for record in two.records]
    for first, second in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(first, second)
    assert one.rule.schedule.state_dict()["last_epoch"] == two.rule.schedule.state_dict()["last_epoch"]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_replayed_steps_give_the_same_numbers(optimizer):
    """The second batch of a shape is taken and recorded, the third and all later ones are replayed."""
    options = {"sampler": "distinct-users", "optimizer": optimizer, "epochs": 3}
    plain, recorded = (trained("lightgcn", recorder, **options) for recorder in (None, Rerun()))
    assert_same(plain, recorded)
    assert recorded.steps.reason is None
    assert recorded.steps.replayed == 3 * recorded.steps_per_epoch - 2
    assert plain.steps.replayed == 0


def test_other_shapes_are_taken_one_by_one_and_recorded_when_they_come_again():
    """Batches with some users who lack a behavior; the padded variant reads only how many there are."""
    for variant in ("official", "mbgraph"):
        plain, recorded = (
            trained("rmbrec", recorder, model={"variant": variant}, epochs=6) for recorder in (None, Rerun())
        )
        assert_same(plain, recorded)
        assert 0 < recorded.steps.replayed < 6 * recorded.steps_per_epoch
    assert len(recorded.steps._recordings) > 1


def test_a_recording_holds_for_its_factors_alone():
    """A weight that rises over epochs is part of what a recording is for."""
    regularizers = [term.replace(warmup=3) for term in MODELS.get("lightgcn").Options().regularizers()]
    options = {"sampler": "distinct-users", "regularizers": regularizers, "epochs": 5}
    plain, recorded = (trained("lightgcn", recorder, **options) for recorder in (None, Rerun()))
    assert_same(plain, recorded)
    assert len(recorded.steps._recordings) == 3


def test_a_step_that_draws_is_never_replayed():
    plain, recorded = (trained("simgcl", recorder) for recorder in (None, Rerun()))
    assert_same(plain, recorded)
    assert recorded.steps.reason == "the step draws random numbers, or depends on the epoch"
    assert recorded.steps.replayed == 0


def test_a_step_that_the_device_refuses_to_record_is_taken_one_by_one():
    class Refusing(Rerun):
        def record(self, step):
            raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")

    options = {"sampler": "distinct-users", "epochs": 2}
    plain, refused = (trained("lightgcn", recorder, **options) for recorder in (None, Refusing()))
    assert_same(plain, refused)
    assert refused.steps.reason == (
        "it cannot be recorded: CUDA error: operation not permitted when stream is capturing"
    )
    assert refused.steps.replayed == 0


def test_no_more_recordings_than_are_kept(monkeypatch):
    monkeypatch.setattr(steps, "MOST", 1)
    plain, recorded = (trained("rmbrec", recorder, epochs=6) for recorder in (None, Rerun()))
    assert_same(plain, recorded)
    assert len(recorded.steps._recordings) == 1


def test_a_resumed_run_records_anew(tmp_path):
    """Moments that were loaded lie elsewhere than those that a recording wrote to."""
    options = {"sampler": "distinct-users"}
    whole = trained("lightgcn", Rerun(), epochs=4, **options)
    trained("lightgcn", Rerun(), epochs=2, directory=tmp_path, **options)
    ds = toy_dataset()
    model = MODELS.get("lightgcn")(ds.graph, ds.target, rng=1, embedding_dim=8, num_layers=2)
    resumed = Trainer(
        model, ds, rng=3, device="cpu", diagnose_every=0, epochs=4, batch_size=8, directory=tmp_path, **options
    )
    resumed.steps.recorder = Rerun()
    resumed.train_epoch(1)
    resumed.fit(resume=True)
    assert_same(whole, resumed)


def test_a_step_is_watched_without_a_change():
    """Numbers, shapes and lengths count as read; what nobody looks at does not."""
    one, two, three, four = (torch.arange(number + 2) for number in range(4))
    with steps._Reads([one, two, three, four]) as reads:
        torch.cat([one, one])
        len(two)
        assert three.shape == (4,)
    assert reads.places == {0, 1, 2}
    context = steps._Watched(3, 4, 5)
    assert not hasattr(context, "was_read")
    plain = StepContext(3, 4, 5)
    assert torch.equal(context.uniform("x", [3]), plain.uniform("x", [3]))
    assert context.was_read
    for name in ("epoch", "step", "seed"):
        fresh = steps._Watched(3, 4, 5)
        assert getattr(fresh, name) == getattr(plain, name)
        assert fresh.was_read
