"""The device cases without a device: with the CPU in its place they hold, so it is a device that they test."""

import pytest
import torch

from mbgraph.models import MODELS
from mbgraph.testing import recommender_cases

for title, case in recommender_cases().items():
    if title in ("TestRmbrec", "TestPkef", "TestPopularity", "TestTwostage"):
        entries = {"other_device": "cpu", "__doc__": case.__doc__, "test_any_number_of_behaviors": None}
        entries |= {
            name: None for name in dir(case) if name.startswith("test_") and "device" not in name
        }  # the others run elsewhere
        globals()[f"{title}InPlace"] = type(f"{title}InPlace", (case,), entries)
del title, case, entries


def test_every_model_has_the_cases():
    """One that is registered is tried on a device, with no word of its own about it."""
    cases = recommender_cases()
    assert len(cases) == len(list(MODELS))
    assert all(hasattr(case, "test_scores_on_a_device_are_those_of_the_cpu") for case in cases.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_they_are_skipped():
    with pytest.raises(pytest.skip.Exception, match="no CUDA device"):
        recommender_cases()["TestPopularity"]().other()
