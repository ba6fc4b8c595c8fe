"""`mbgraph export` on a real run."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from mbgraph.cli.main import cli
from mbgraph.config import FitConfig
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.npz import write_npz
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.export import load_export
from mbgraph.recommend import recommend
from mbgraph.run import Run, fit

USERS, ITEMS, DIM = 12, 10, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of a model per behavior, of one without, and of one without embeddings."""
    folder = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(0)
    edges = {}
    for behavior, count in (("view", 50), ("buy", 33)):
        users, items = np.divmod(rng.choice(USERS * ITEMS, count, replace=False), ITEMS)
        edges[behavior] = Pairs(users.astype(np.int64), items.astype(np.int64))
    users = Vocabulary([f"u{n}" for n in range(USERS)], kind="user")
    items = Vocabulary([100 * n for n in range(ITEMS)], kind="item")
    write_npz(MultiBehaviorDataset("tiny", users, items, edges, target="buy"), folder / "tiny")
    config = FitConfig(dataset=str(folder / "tiny"), validation="none")
    for model in ("rmbrec", "lightgcn"):
        trained = config.replace(model=model, training={"epochs": 1}, options={"embedding_dim": DIM})
        fit(trained, folder / model)
    fit(config.replace(model="popularity"), folder / "popularity")
    return folder


def call(*args, code=0):
    result = CliRunner().invoke(cli, ["export", *map(str, args)])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
@pytest.mark.parametrize("model", ["rmbrec", "lightgcn"])
def test_export_recommends_like_the_run(folder, tmp_path, model, suffix):
    path = tmp_path / f"out.{suffix}"
    report = json.loads(call(folder / model, "-o", path, "--json").stdout)
    exported, run = load_export(path), Run.load(folder / model)
    assert report == {
        "out": str(path),
        "format": suffix,
        "dataset": "tiny",
        "model": model,
        "users": USERS,
        "items": ITEMS,
        "embedding_dim": DIM,
        "behaviors": list(exported.behaviors),
        "dot_scores": True,
    }
    ds = run.dataset()
    for exclude in ("target", "all", "none"):
        frame = recommend(run.model(ds), ds, k=4, exclude=exclude)
        for user in ds.users.ids:
            items, scores = exported.recommend(user, k=4, exclude=exclude)
            wanted = frame[frame["user"] == user]
            assert items.tolist() == wanted["item"].tolist()
            np.testing.assert_allclose(scores, wanted["score"], rtol=1e-4, atol=1e-7)


def test_per_behavior_embeddings(folder, tmp_path):
    call(folder / "rmbrec", "-o", tmp_path / "out.npz")
    assert set(load_export(tmp_path / "out.npz").behaviors) == {"view", "buy"}


def test_text_report(folder, tmp_path):
    text = call(folder / "rmbrec", "-o", tmp_path / "out.npz").stderr
    assert f"rmbrec on tiny: {USERS} users and {ITEMS} items x {DIM} (fused, view, buy) in " in text


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("rmbrec", [], "error: no file to write; name it with -o FILE.npz or -o FILE.parquet"),
        ("rmbrec", ["-o", "out.txt"], "error: 'out.txt' names no export format; end it in .npz or .parquet"),
        (
            "rmbrec",
            ["-o", "out", "--format", "npy"],
            "error: unknown export format 'npy'; did you mean 'npz'?",
        ),
        (
            "popularity",
            ["-o", "out.npz"],
            "error: model 'popularity' has no embeddings; use an embedding model",
        ),
    ],
)
def test_errors(folder, tmp_path, monkeypatch, model, options, message):
    monkeypatch.chdir(tmp_path)
    result = call(folder / model, *options, code=2)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_no_run(tmp_path):
    assert "error: no run directory at" in call(tmp_path / "none", "-o", tmp_path / "out.npz", code=1).stderr
