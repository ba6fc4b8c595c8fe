"""Hooks run when they say, and training stops when it should."""

import pytest

from mbgraph.errors import UsageError
from mbgraph.models import RMBRec
from mbgraph.training import Callback, EarlyStopping, Trainer


class Diary(Callback):
    """Writes down what it is told."""

    def __init__(self):
        self.lines = []

    def on_train_begin(self, trainer):
        self.lines.append(("begin", trainer.epoch))

    def on_step_end(self, trainer, step, terms):
        assert terms["total"] == pytest.approx(sum(value for name, value in terms.items() if name != "total"))
        self.lines.append(("step", step))

    def on_epoch_end(self, trainer, record):
        self.lines.append(("epoch", record["epoch"]))

    def on_train_end(self, trainer):
        self.lines.append(("end", trainer.epoch))


def test_hooks_run_in_this_order(small, tmp_path):
    def trainer(diary, epochs):
        model = RMBRec(small.graph, small.target, embedding_dim=8, num_layers=1, rng=5)
        return Trainer(model, small, epochs=epochs, batch_size=64, rng=5, callbacks=[diary], directory=tmp_path)

    first, second = Diary(), Diary()
    steps = [("step", step) for step in range(trainer(first, 2).steps_per_epoch)]
    assert len(steps) > 1
    trainer(first, 2).fit()
    trainer(second, 3).fit(resume=True)
    assert first.lines == [("begin", 0), *steps, ("epoch", 1), *steps, ("epoch", 2), ("end", 2)]
    assert second.lines == [("begin", 2), *steps, ("epoch", 3), ("end", 3)]


def test_a_callback_needs_no_hook(small):
    model = RMBRec(small.graph, small.target, embedding_dim=8, num_layers=1, rng=5)
    Trainer(model, small, epochs=1, batch_size=64, callbacks=[Callback()]).fit()


def test_early_stopping_waits_for_patience_epochs():
    stopping = EarlyStopping(2)
    seen = []
    for epoch, value in enumerate([0.1, 0.3, 0.3, 0.2, 0.25, 0.9], start=1):
        stopping.update(epoch, value)
        seen.append(stopping.should_stop(epoch))
    assert seen == [False, False, False, False, True, False]
    assert [EarlyStopping(2).should_stop(epoch) for epoch in (1, 2, 3)] == [False, False, True]  # no value so far
    again = EarlyStopping(2)
    again.load_state_dict(stopping.state_dict())
    assert (again.best_epoch, again.best_value) == (6, 0.9)
    with pytest.raises(UsageError, match="patience must not be negative"):
        EarlyStopping(-1)
