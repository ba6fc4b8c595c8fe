"""Checkpoints and weights: nothing but what was written is taken, and a failing disk is one line."""

import contextlib
import errno

import pytest
import torch

from mbgraph import manifest
from mbgraph.errors import RunError
from mbgraph.files import append_line
from mbgraph.training import checkpoint
from mbgraph.training.checkpoint import check_weights, load_checkpoint, load_weights, save_checkpoint


def test_checkpoints_hold_no_code(tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("executed",))

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(RunError, match="no checkpoint at"):
        load_checkpoint(path)
    save_checkpoint(tmp_path, {"epoch": 1})
    assert load_checkpoint(path)["epoch"] == load_checkpoint(str(path))["epoch"] == 1
    good = path.read_bytes()
    path.write_bytes(good[:100])
    with pytest.raises(RunError, match=r"checkpoint.pt is not the file that was written there"):
        load_checkpoint(path)
    torch.save({"format": 2, "x": Payload()}, path)
    bad = path.read_bytes()
    for content, message in ((bad, "cannot read checkpoint"), (good[:100], "cannot read checkpoint")):
        path.write_bytes(content)
        manifest.note(tmp_path, [path.name])
        with pytest.raises(RunError, match=message):
            load_checkpoint(path)
    torch.save({"format": 99}, path)
    manifest.note(tmp_path, [path.name])
    with pytest.raises(RunError, match="has another format than 2"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "change",
    [
        {"rng": None},
        {"records": None},
        {"records": "[1]"},
        {"records": "nonsense"},
        {"epoch": 7},
        {"epoch": "1"},
        {"stopping": {}},
        {"stopping": 3},
        {"rule": None},
        {"rule": {"state": 1}},
        {"best": 3},
        {"best": {}},
        {"model": None},
    ],
)
def test_odd_checkpoints_are_one_line_and_change_nothing(dataset, tmp_path, change, make):
    make(dataset, epochs=1, directory=tmp_path).fit()
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    (name,) = change
    for odd in ({**state, **change}, {key: value for key, value in state.items() if key != name}):
        save_checkpoint(tmp_path, odd)
        before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
        with pytest.raises(RunError) as caught:
            make(dataset, epochs=2, directory=tmp_path).fit(resume=True)
        assert "\n" not in str(caught.value)
        assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


def test_weights_of_another_type_are_refused(dataset, tmp_path, make):
    trainer = make(dataset, epochs=1, directory=tmp_path)
    trainer.fit()
    weights = load_weights(str(tmp_path / "model.safetensors"))
    for kind in (torch.float16, torch.int64):
        with pytest.raises(RunError, match=r"it belongs to another model \(.* is no torch.float32"):
            check_weights(trainer.model, {name: tensor.to(kind) for name, tensor in weights.items()}, "it")


def test_on_windows_weights_do_not_lie_in_their_file(dataset, tmp_path, monkeypatch, make):
    """A file with tensors in it cannot be replaced there."""
    make(dataset, epochs=1, directory=tmp_path).fit()
    file = tmp_path / "model.safetensors"
    weights = load_weights(file)
    monkeypatch.setattr(checkpoint.sys, "platform", "win32")
    monkeypatch.setattr(checkpoint, "load_file", lambda path: weights)
    copied = load_weights(file)
    assert copied.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(copied[name], tensor)
        assert copied[name].data_ptr() != tensor.data_ptr()


def test_a_full_disk_is_one_line(dataset, tmp_path, monkeypatch, make):
    """torch tells of a full disk as of an unexpected position."""
    trainer = make(dataset, epochs=2, directory=tmp_path)
    trainer.fit()
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name):
            return getattr(self.file, name)

    real = manifest.atomic_write

    @contextlib.contextmanager
    def full(path, mode):
        with real(path, mode) as file:
            yield Full(file)

    monkeypatch.setattr(manifest, "atomic_write", full)
    with pytest.raises(RunError, match=r"cannot write .*checkpoint.pt: No space left on device; free some space"):
        trainer._save(True)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before
    with pytest.raises(RunError, match=r"cannot write .*: (Is a directory|Permission denied)"):
        append_line(tmp_path, "x")
