"""What every model must do on another device than the CPU; cases that need one are marked ``cuda``."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import UsageError
from mbgraph.evaluation.evaluate import evaluate_splits
from mbgraph.export import export_embeddings
from mbgraph.models.base import Recommender
from mbgraph.models.context import StepContext
from mbgraph.recommend import recommend
from mbgraph.training.steps import Rerun
from mbgraph.training.trainer import Trainer

__all__ = ["DeviceCases", "TrainedDeviceCases"]

TOLERANCE = 1e-4
"""What a device may differ from the CPU by, as a share of the largest number."""


def assert_close(made: Tensor, expected: Tensor, what: str = "") -> None:
    """Compare numbers of a device with those of the CPU."""
    assert made.shape == expected.shape, what
    bound = TOLERANCE * float(expected.detach().abs().max()) if expected.numel() else 0.0
    assert made.numel() == 0 or float((made.detach().cpu() - expected.detach()).abs().max()) <= bound, what


class DeviceCases:
    """For all models, as a part of `RecommenderCases`; ``other_device`` is where they are tried."""

    other_device: ClassVar[str] = "cuda"
    behaviors: ClassVar[tuple[str, ...]]
    if TYPE_CHECKING:
        build: Callable[..., Recommender]
        ready: Callable[..., Recommender]
        scores: Callable[[Recommender], Tensor]

    def other(self) -> str:
        """Return the device to try; the case is skipped where there is none."""
        if self.other_device == "cuda" and not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        return self.other_device

    def pair(self) -> tuple[MultiBehaviorDataset, Recommender, Recommender]:
        """Return a dataset, a model that may be asked for scores, and its copy on the other device."""
        from mbgraph.testing.recommenders import toy_dataset

        device, ds = self.other(), toy_dataset(self.behaviors)
        model = self.ready(ds).eval()
        return ds, model, copy.deepcopy(model).to(device)

    @pytest.mark.cuda
    def test_scores_on_a_device_are_those_of_the_cpu(self) -> None:
        """Within 1e-4 of the largest score."""
        _, model, twin = self.pair()
        assert_close(self.scores(twin), self.scores(model))

    @pytest.mark.cuda
    def test_copies_of_a_model_on_a_device_are_equal(self) -> None:
        """Deep copies and pickles, after a first use has laid views of the graph on the device; and the way back."""
        _, model, twin = self.pair()
        expected = self.scores(twin)
        for copied in (copy.deepcopy(twin), pickle.loads(pickle.dumps(twin))):
            assert torch.equal(self.scores(copied), expected)
        assert_close(self.scores(copy.deepcopy(twin).cpu()), self.scores(model))

    @pytest.mark.cuda
    def test_an_evaluation_on_a_device_is_that_of_the_cpu(self) -> None:
        """Ranks are equal where scores are not all but equal: rounding may part or join two items."""
        ds, model, twin = self.pair()
        expected, made = (evaluate_splits(each, ds) for each in (model, twin))
        scores = self.scores(model)
        bound = TOLERANCE * float(scores.abs().max())
        for split, result in expected.items():
            own = scores[result.pair_user, result.pair_item].unsqueeze(1)
            close = ((scores[result.pair_user] - own).abs() <= bound).sum(1).numpy() - 1  # itself is close
            assert (np.abs(made[split].pair_rank - result.pair_rank) <= close).all(), split

    @pytest.mark.cuda
    def test_recommendations_on_a_device_are_those_of_the_cpu(self) -> None:
        """The scores of the lists, and every item by a score that the CPU gives it."""
        ds, model, twin = self.pair()
        expected, made = (recommend(each, ds, k=5) for each in (model, twin))
        assert made[["user", "rank"]].equals(expected[["user", "rank"]])
        own = torch.tensor(made["score"].to_numpy(np.float64))
        assert_close(own, torch.tensor(expected["score"].to_numpy(np.float64)))
        assert_close(own, self.scores(model)[made["user"].tolist(), made["item"].tolist()].to(torch.float64))

    @pytest.mark.cuda
    def test_an_export_from_a_device_is_that_of_the_cpu(self, tmp_path: Path) -> None:
        """Embeddings of a model that has some; the others refuse, on either device."""
        ds, model, twin = self.pair()
        try:
            expected = export_embeddings(model, ds, tmp_path / "cpu.npz")
        except UsageError:
            with pytest.raises(UsageError, match="no embeddings"):
                export_embeddings(twin, ds, tmp_path / "device.npz")
            return
        made = export_embeddings(twin, ds, tmp_path / "device.npz")
        for name in ("user", "item"):
            assert_close(torch.from_numpy(getattr(made, name)), torch.from_numpy(getattr(expected, name)), name)


class _Watch(TorchDispatchMode):
    """Notes operations that mix devices; with ``meta`` tensors every number that the host asks for is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = [each for each in tree_leaves((args, kwargs or {})) if isinstance(each, Tensor) and each.ndim]
        if len({each.device.type for each in found}) > 1:
            self.mixed.append(str(func))
        return func(*args, **(kwargs or {}))


class TrainedDeviceCases(DeviceCases):
    """For models that train."""

    if TYPE_CHECKING:
        first_step: Callable[..., tuple[Any, StepContext]]
        objective: Callable[..., dict[str, Tensor]]
        trainer: Callable[..., Trainer]
        training: ClassVar[dict[str, Any]]

    def test_a_step_waits_for_no_device(self) -> None:
        """Forward and backward ask the device for no number, and everything lies on it.

        On torch's device without numbers there is none to ask for.
        """
        from mbgraph.testing.recommenders import toy_dataset

        ds = toy_dataset(self.behaviors)
        model = self.build(ds)
        batch, context = self.first_step(model, ds)
        twin = copy.deepcopy(model).to("meta")
        with _Watch() as watch:
            terms = self.objective(twin, batch.to("meta"), context)
            torch.stack(list(terms.values())).sum().backward()
        assert watch.mixed == []
        assert {str(term.device) for term in terms.values()} == {"meta"}

    @pytest.mark.cuda
    @pytest.mark.parametrize("fast", [False, True])
    def test_a_step_on_a_device_is_that_of_the_cpu(self, fast: bool) -> None:
        """Terms and gradients, of a model that was prepared here and moved, and of one that was moved first."""
        from mbgraph.testing.recommenders import toy_dataset

        device, ds = self.other(), toy_dataset(self.behaviors)
        known = "backend" in self.build(ds).options.names()
        model = self.build(ds, **({"backend": "triton"} if fast and known else {}))
        late = copy.deepcopy(model).to(device)
        batch, context = self.first_step(model, ds)
        moved = copy.deepcopy(model).to(device)
        self.first_step(late, ds)
        expected = self.objective(model, batch, context)
        torch.stack(list(expected.values())).sum().backward()
        for twin in (moved, late):
            terms = {name: term.to(device) for name, term in self.objective(twin, batch.to(device), context).items()}
            torch.stack(list(terms.values())).sum().backward()
            assert terms.keys() == expected.keys()
            for name, term in terms.items():
                assert float(term.detach()) == pytest.approx(float(expected[name].detach()), rel=TOLERANCE, abs=1e-6), (
                    name
                )
            for (name, one), two in zip(model.named_parameters(), twin.parameters(), strict=True):
                assert one.grad is not None, name
                assert two.grad is not None, name
                assert_close(two.grad, one.grad, name)

    @pytest.mark.cuda
    def test_two_fits_on_a_device_are_equal_to_the_bit(self) -> None:
        """The same seed, the same numbers."""
        from mbgraph.testing.recommenders import toy_dataset

        device, ds = self.other(), toy_dataset(self.behaviors)
        one, two = (self.trainer(ds, device=device) for _ in range(2))
        for run in (one, two):
            run.fit()
        assert [record["terms"] for record in one.records] == [record["terms"] for record in two.records]
        for (name, first), second in zip(one.model.named_parameters(), two.model.parameters(), strict=True):
            assert torch.equal(first, second), name

    def test_steps_on_memory_that_stays_are_the_same(self) -> None:
        """What a recording replays, the step on a batch copied to where the last one was, gives the same bits."""
        from mbgraph.testing.recommenders import toy_dataset

        ds = toy_dataset(self.behaviors)
        plain, recorded = (self.trainer(ds, epochs=2) for _ in range(2))
        recorded.steps.recorder = Rerun()
        for run in (plain, recorded):
            run.fit()
        assert [record["terms"] for record in plain.records] == [record["terms"] for record in recorded.records]
        for (name, first), second in zip(plain.model.named_parameters(), recorded.model.parameters(), strict=True):
            assert torch.equal(first, second), name

    @pytest.mark.cuda
    @pytest.mark.parametrize("fast", [False, True])
    def test_recorded_steps_on_a_device_are_the_same(self, fast: bool) -> None:
        """Operation by operation or replayed, with the same kernels: to the bit."""
        from mbgraph.testing.recommenders import toy_dataset

        device, ds = self.other(), toy_dataset(self.behaviors)
        known = "backend" in self.build(ds).options.names()
        runs = []
        for record_steps in (False, True):
            model = self.build(ds, **({"backend": "triton"} if fast and known else {}))
            options = {"epochs": 4, "batch_size": 7, "diagnose_every": 0, **self.training}
            runs.append(Trainer(model, ds, rng=3, device=device, record_steps=record_steps, **options))
            runs[-1].fit()
        plain, recorded = runs
        assert [record["terms"] for record in plain.records] == [record["terms"] for record in recorded.records]
        for (name, first), second in zip(plain.model.named_parameters(), recorded.model.parameters(), strict=True):
            assert torch.equal(first, second), name

    @pytest.mark.cuda
    @pytest.mark.parametrize("back", [False, True])
    def test_a_run_is_resumed_across_devices(self, tmp_path: Path, back: bool) -> None:
        """Begun on the CPU and ended on the device, or the other way round; the first epoch stays as it was."""
        from mbgraph.testing.recommenders import toy_dataset

        first, second = ("cpu", self.other())[:: -1 if back else 1]
        ds = toy_dataset(self.behaviors)
        begun = self.trainer(ds, epochs=1, directory=tmp_path, device=first)
        begun.fit()
        resumed = self.trainer(ds, epochs=2, directory=tmp_path, device=second)
        resumed.fit(resume=True)
        whole = self.trainer(ds, epochs=2, device=first)
        whole.fit()
        assert resumed.records[0]["terms"] == begun.records[0]["terms"]
        for name, value in whole.records[1]["terms"].items():
            made = resumed.records[1]["terms"][name]
            assert math.isfinite(made), name
            assert made == pytest.approx(value, rel=1e-2, abs=1e-4), name
