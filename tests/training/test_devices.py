"""Where to train, and what is asked of torch there."""

import os

import pytest
import torch

from mbgraph.errors import UsageError
from mbgraph.training.devices import repeatable, resolve_device


def test_a_device_that_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="no CUDA device is available; use --device cpu"):
        resolve_device("cuda")
    with pytest.raises(UsageError, match="unknown device 'tpu'; choose auto, cpu or cuda"):
        resolve_device("tpu")


def test_a_cuda_device_gets_a_workspace_of_fixed_size(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert resolve_device("cpu") == torch.device("cpu")
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # what somebody chose stays
    resolve_device("cuda")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def state():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_order_is_asked_for_on_cuda_alone_and_given_back():
    before = state()
    with repeatable(torch.device("cpu")):
        assert state() == before
    with repeatable(torch.device("cuda")):
        assert state() == (True, True, False)
    assert state() == before
    with repeatable(torch.device("cuda")), pytest.raises(ZeroDivisionError):
        1 / 0  # noqa: B018
    assert state() == before
