"""What a run directory holds, and every way it can be wrong."""

import json
import shutil

import pytest

from mbgraph import machine
from mbgraph.config import FitConfig
from mbgraph.errors import RunError, UsageError
from mbgraph.run import Run, directory, fit


@pytest.fixture(scope="module")
def finished(small_folder, tmp_path_factory):
    """A finished run of one epoch."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    options = {"embedding_dim": 8, "num_layers": 1}
    fit(FitConfig(dataset=str(small_folder), training={"epochs": 1, "batch_size": 64}, options=options), path)
    return path


def test_env_says_where_it_ran(finished, monkeypatch):
    environment = json.loads((finished / "env.json").read_text())
    assert environment["cpu"] == machine.cpu_name()
    assert environment["versions"]["torch"] == machine.package_version("torch")
    assert {"mbgraph", "dgl", "numba", "pydantic"} <= set(environment["versions"])
    if environment["device"] == "cpu":
        assert environment["gpu"] is None


def test_the_card_is_named(small, tmp_path, monkeypatch, small_folder):
    monkeypatch.setattr(directory, "resolve_device", lambda device: __import__("torch").device("cuda"))
    monkeypatch.setattr(directory.torch.cuda, "get_device_name", lambda device: "Fast Card")
    small = small.replace(metadata={"validation": "given"})
    directory.write_facts(tmp_path, FitConfig(dataset=str(small_folder)), small)
    environment = json.loads((tmp_path / "env.json").read_text())
    assert (environment["device"], environment["gpu"]) == ("cuda", "Fast Card")


def test_no_and_half_directories(tmp_path):
    with pytest.raises(RunError, match="no run directory at .*nowhere; make one with: mbgraph fit --out DIR"):
        Run.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"not a complete run directory: config.toml is missing; fit the model again"):
        Run.load(tmp_path / "empty")


def copy(path, to):
    shutil.copytree(path, to)
    return to


def test_other_version_other_data_other_model(finished, tmp_path):
    newer = copy(finished, tmp_path / "newer")
    (newer / "config.toml").write_text((newer / "config.toml").read_text().replace("format = 2", "format = 9"))
    with pytest.raises(RunError, match=r"was written by mbgraph .* in format 9, not 2"):
        Run.load(newer)
    wrong = copy(finished, tmp_path / "wrong")
    (wrong / "config.toml").write_text((wrong / "config.toml").read_text().replace("epochs = 1", "epochs = 0"))
    with pytest.raises(UsageError, match=r"config.toml: epochs of the training options must be a whole number from 1"):
        Run.load(wrong)
    moved = copy(finished, tmp_path / "moved")
    record = json.loads((moved / "dataset.json").read_text())
    (moved / "dataset.json").write_text(json.dumps({**record, "content_hash": "0" * 64}))
    with pytest.raises(RunError, match="was made with other data than"):
        Run.load(moved).dataset()
    bare = copy(finished, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"no model at .*model.safetensors"):
        Run.load(bare).model()
    torn = copy(finished, tmp_path / "torn")
    (torn / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RunError, match="cannot read model"):
        Run.load(torn).model()
    wider = copy(finished, tmp_path / "wider")
    text = (wider / "config.toml").read_text().replace("embedding_dim = 8", "embedding_dim = 9")
    (wider / "config.toml").write_text(text)
    with pytest.raises(RunError, match="holds weights of another model"):
        Run.load(wider).model()


@pytest.mark.parametrize("name", ["../../../EVIL", "/tmp/EVIL", "a\0b", "x" * 300, "\ud800"])
def test_a_default_folder_lies_below_runs_whatever_the_data_are_called(small, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = directory.make_directory(FitConfig(), small.replace(name=name))
    assert path.is_dir()
    assert path.resolve().parent == tmp_path / "runs"
