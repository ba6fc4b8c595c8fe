"""What a run directory holds, and every way it can be wrong."""

import json
import shutil

import pytest

from mbgraph import machine, manifest
from mbgraph._dgl import graph_carrier
from mbgraph.config import FitConfig
from mbgraph.data.formats.npz import write_npz
from mbgraph.data.interactions import Vocabulary
from mbgraph.errors import RunError, UsageError
from mbgraph.run import Run, directory, fit, resume


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
    assert environment["graph"] == graph_carrier().name
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
    for key, what in (("content_hash", "data"), ("ids_hash", "ids of users and items")):
        (moved / "dataset.json").write_text(json.dumps({**record, key: "0" * 64}))
        manifest.note(moved, ["dataset.json"])
        with pytest.raises(RunError, match=f"was made with other {what} than"):
            Run.load(moved).dataset()
    bare = copy(finished, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"no model at .*model.safetensors"):
        Run.load(bare).model()
    torn = copy(finished, tmp_path / "torn")
    (torn / "model.safetensors").write_bytes(b"nonsense")
    manifest.note(torn, ["model.safetensors"])
    with pytest.raises(RunError, match="cannot read model"):
        Run.load(torn).model()
    wider = copy(finished, tmp_path / "wider")
    text = (wider / "config.toml").read_text().replace("embedding_dim = 8", "embedding_dim = 9")
    (wider / "config.toml").write_text(text)
    manifest.note(wider, ["config.toml"])
    with pytest.raises(RunError, match=r"model.safetensors belongs to another model \(.* is no torch.float32 of shape"):
        Run.load(wider).model()


@pytest.mark.parametrize("name", ["../../../EVIL", "/tmp/EVIL", "a\0b", "x" * 300, "\ud800"])
def test_a_default_folder_lies_below_runs_whatever_the_data_are_called(small, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = directory.make_directory(FitConfig(), small.replace(name=name))
    assert path.is_dir()
    assert path.resolve().parent == tmp_path / "runs"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.toml", b"num_layers = 1", b"num_layers = 2"),
        ("model.safetensors", None, None),
        ("dataset.json", b'"name"', b'"nome"'),
    ],
)
def test_files_that_were_changed_are_not_evaluated(finished, tmp_path, name, old, new):
    path = copy(finished, tmp_path / "run")
    content = bytearray((path / name).read_bytes())
    if old is None:
        content[-2] ^= 64
    else:
        assert old in content
        content = content.replace(old, new)
    (path / name).write_bytes(content)
    uses = [lambda: Run.load(path).model()]
    if name != "model.safetensors":  # which is written anew from the checkpoint
        uses.append(lambda: resume(path))
    for use in uses:
        with pytest.raises(RunError, match=f"{name} is not the file that was written there"):
            use()


def test_items_in_another_order_are_other_items(tiny, tmp_path):
    """The pairs are the same by row, so their hash does not see it."""
    data = tmp_path / "data"
    write_npz(tiny, data)
    fit(FitConfig(dataset=str(data), model="popularity"), tmp_path / "run")
    assert Run.load(tmp_path / "run").dataset().num_items == 5
    lines = (data / "items.txt").read_text().splitlines()
    (data / "items.txt").write_text("\n".join(lines[::-1]) + "\n")
    with pytest.raises(RunError, match="was made with other ids of users and items than"):
        Run.load(tmp_path / "run").dataset()


def test_one_writer_at_a_time(finished, tmp_path):
    path = copy(finished, tmp_path / "run")
    told = r"process \d+ on .+ is writing .*run; wait until it ends, or choose another folder"
    with directory.writing(path):
        with pytest.raises(RunError, match=told):
            resume(path)
        assert Run.load(path).model() is not None
    resume(path)
    fresh = tmp_path / "fresh"
    with directory.writing(fresh), pytest.raises(RunError, match=told.replace("run;", "fresh;")):
        fit(FitConfig(model="popularity"), fresh)
    fit(FitConfig(model="popularity"), fresh)
    with pytest.raises(UsageError, match="fresh already exists and is not empty; continue it with --resume"):
        fit(FitConfig(model="popularity"), fresh)


def test_default_folders_never_meet(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [directory.make_directory(FitConfig(), small).name for _ in range(3)]
    assert made == ["small-rmbrec-s2026", "small-rmbrec-s2026-2", "small-rmbrec-s2026-3"]


def test_what_a_kill_left_is_swept_at_resume(finished, tmp_path):
    path = copy(finished, tmp_path / "run")
    left = path / ".model.safetensors.abcd1234.tmp"
    left.write_bytes(b"half")
    (path / "notes.tmp").write_text("mine")
    (path / ".tmp").write_text("mine")
    resume(path)
    assert not left.exists()
    assert (path / "notes.tmp").exists()
    assert (path / ".tmp").exists()


def test_ids_hash(tiny):
    assert tiny.ids_hash() == tiny.replace(name="other").ids_hash()
    others = [
        tiny.replace(users=Vocabulary(size=6, kind="user")),
        tiny.replace(users=Vocabulary(range(10, 16), kind="user")),
        tiny.replace(users=Vocabulary(["u0u", "1", "u2", "u3", "u4", "u5"], kind="user")),
        tiny.replace(items=Vocabulary([f"i{4 - row}" for row in range(5)], kind="item")),
    ]
    assert len({ds.ids_hash() for ds in (tiny, *others)}) == 5
