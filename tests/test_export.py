"""Exports: what is in the file, scoring without torch, and files that are not what they say."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError, RunError, UnknownNameError, UsageError
from mbgraph.export import ExportedModel, export_embeddings, load_export
from mbgraph.models.base import Recommender
from mbgraph.recommend import recommend

USERS, ITEMS, DIM = 7, 9, 4


class Dot:
    """Scores are products of embeddings, unless a bias makes them something else."""

    name = "dot"

    def __init__(self, bias=0.0):
        generator = torch.Generator().manual_seed(3)
        shapes = {"": (DIM, DIM), "view": (3, 3), "buy": (DIM, DIM)}
        self.tensors = {
            name: (
                torch.randn(USERS, d, generator=generator, requires_grad=True),
                torch.randn(ITEMS, e, generator=generator),
            )
            for name, (d, e) in shapes.items()
        }
        self.bias = bias

    def check_dataset(self, ds):
        pass

    def encode(self, graph=None):
        users, items = self.tensors[""]
        behaviors = {name: pair for name, pair in self.tensors.items() if name}
        return SimpleNamespace(users=users, items=items, behaviors=behaviors)

    def scorer(self, graph=None):
        users, items = self.tensors[""]
        scores = lambda rows: users[rows] @ items.T + self.bias * torch.arange(ITEMS)  # noqa: E731
        return SimpleNamespace(num_users=USERS, num_items=ITEMS, scores=scores)


def dataset(kind="text", **changes):
    rng = np.random.default_rng(5)
    edges = {}
    for behavior, count in (("view", 20), ("buy", 12)):
        users, items = np.divmod(rng.choice(USERS * ITEMS, count, replace=False), ITEMS)
        edges[behavior] = Pairs(users.astype(np.int64), items.astype(np.int64))
    user_ids = [f"ü{n}" + "x" * n for n in range(USERS)] if kind == "text" else [10 * n + 5 for n in range(USERS)]
    item_ids = [f"i {n}" for n in range(ITEMS)] if kind == "text" else [2**40 - n for n in range(ITEMS)]
    fields = {
        "users": Vocabulary(user_ids, kind="user"),
        "items": Vocabulary(item_ids, kind="item"),
        "edges": edges,
        "target": "buy",
    }
    return MultiBehaviorDataset("toy", **{**fields, **changes})


@pytest.fixture(params=["npz", "parquet"])
def suffix(request):
    return request.param


@pytest.fixture
def exported(tmp_path):
    path = tmp_path / "out.npz"
    export_embeddings(Dot(), dataset(), path)
    return path


@pytest.mark.parametrize("kind", ["text", "whole"])
def test_round_trip(tmp_path, suffix, kind):
    model, ds, path = Dot(), dataset(kind), tmp_path / f"out.{suffix}"
    written = export_embeddings(model, ds, path)
    read = load_export(path)
    assert os.listdir(tmp_path) == [path.name]  # no temporary file stays
    for vocabulary, original in ((read.users, ds.users), (read.items, ds.items)):
        assert vocabulary.ids.tolist() == original.ids.tolist()
        assert vocabulary.ids.dtype == original.ids.dtype
    for name, (users, items) in {"": (read.user, read.item), **read.behaviors}.items():
        np.testing.assert_array_equal(users, model.tensors[name][0].detach().numpy())
        np.testing.assert_array_equal(items, model.tensors[name][1].numpy())
        assert users.dtype == items.dtype == np.float32
    assert list(read.behaviors) == ["view", "buy"]
    assert read.meta == written.meta
    assert read.meta["dataset"] == "toy"
    assert read.meta["dataset_hash"] == ds.content_hash()
    assert (read.meta["model"], read.meta["target"], read.meta["dot_scores"]) == ("dot", "buy", True)


@pytest.mark.parametrize("kind", ["text", "whole"])
@pytest.mark.parametrize("exclude", ["target", "all", "none"])
def test_equals_recommend(tmp_path, suffix, kind, exclude):
    model, ds, path = Dot(), dataset(kind), tmp_path / f"out.{suffix}"
    export_embeddings(model, ds, path)
    exported = ExportedModel.load(path)
    expected = recommend(model, ds, k=5, exclude=exclude)
    for user in ds.users.ids:
        items, scores = exported.recommend(user, k=5, exclude=exclude)
        rows = expected[expected["user"] == user]
        assert items.tolist() == rows["item"].tolist()
        np.testing.assert_allclose(scores, rows["score"], rtol=1e-5)


def test_score(exported):
    model = ExportedModel.load(exported)
    whole = model.score("ü0")
    assert whole.shape == (ITEMS,)
    np.testing.assert_allclose(whole, model.item @ model.user[0])
    np.testing.assert_allclose(model.score("ü0", ["i 7", "i 2"]), whole[[7, 2]], rtol=1e-6)


def test_fewer_candidates_and_ties():
    seen = dataset("whole").csr("buy")
    users, items = Vocabulary(size=USERS, kind="user"), Vocabulary(size=ITEMS, kind="item")
    model = ExportedModel(users, items, np.ones((USERS, 1)), np.ones((ITEMS, 1)), {}, {"target": seen})
    for user in range(USERS):
        expected = [item for item in range(ITEMS) if item not in seen.row(user)]
        assert model.recommend(user, k=ITEMS)[0].tolist() == expected


def test_npz_layout(exported):
    with np.load(exported, allow_pickle=False) as arrays:  # would refuse object arrays
        assert sorted(arrays) == sorted(
            [
                "user_ids",
                "item_ids",
                "user",
                "item",
                "user__view",
                "item__view",
                "user__buy",
                "item__buy",
                "meta",
            ]
            + [f"seen_{name}_{part}" for name in ("target", "all") for part in ("indptr", "indices")]
        )
        assert arrays["user_ids"].dtype.kind == "U"
        assert arrays["user"].shape == (USERS, DIM)
        assert json.loads(str(arrays["meta"]))["format"] == "mbgraph-export"


def test_parquet_layout(tmp_path):
    ds = dataset("whole")
    export_embeddings(Dot(), ds, tmp_path / "out.parquet")
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert frame["kind"].tolist() == ["user"] * USERS + ["item"] * ITEMS
    assert frame["id"].tolist() == [str(name) for name in (*ds.users.ids, *ds.items.ids)]
    assert frame["embedding"].map(len).unique().tolist() == [DIM]
    assert frame["embedding__view"].map(len).unique().tolist() == [3]
    assert frame["seen_target"][0].tolist() == ds.csr("buy").row(0).tolist()
    assert frame["seen_all"][USERS:].isna().all()


def test_numpy_is_enough(exported):
    """A serving machine has neither torch nor DGL, and for npz neither pandas nor pyarrow nor SciPy."""
    code = (
        "import sys\n"
        "for name in ('torch', 'dgl', 'pandas', 'pyarrow', 'scipy'): sys.modules[name] = None\n"
        "from mbgraph.export import ExportedModel\n"
        f"items, scores = ExportedModel.load({str(exported)!r}).recommend('ü0', k=3)\n"
        "print(*items, sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, encoding="utf-8")
    expected = recommend(Dot(), dataset(), "ü0", k=3)["item"].tolist()
    assert done.stdout.strip().split("|") == expected


def test_scores_that_are_not_products(tmp_path):
    """The embeddings are still worth exporting, but scoring from them would be wrong."""
    exported = export_embeddings(Dot(bias=1.0), dataset(), tmp_path / "out.npz")
    assert exported.meta["dot_scores"] is False
    with pytest.raises(UsageError, match=r"'dot' are not products of its embeddings; use mbgraph\.recommend"):
        ExportedModel.load(tmp_path / "out.npz").recommend("ü0", k=1)


def test_model_without_embeddings(tmp_path):
    class Plain(Recommender):
        name = "plain"
        num_users, num_items = USERS, ITEMS

        def scorer(self, graph=None):
            raise AssertionError

    ds = dataset()
    with pytest.raises(UsageError, match="model 'plain' has no embeddings; use an embedding model"):
        export_embeddings(Plain(ds.graph, "buy"), ds, tmp_path / "out.npz")
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_dataset(small, tmp_path):
    from mbgraph.data.splits import merge_split
    from mbgraph.models import LightGCN

    model = LightGCN(small.graph, small.target, embedding_dim=4)
    export_embeddings(model, small, tmp_path / "own.npz")
    with pytest.raises(DataError, match="the model was built on other 'buy' edges than the train edges of dataset"):
        export_embeddings(model, merge_split(small, "valid"), tmp_path / "out.npz")
    with pytest.raises(
        DataError, match="the model was built for 120 users x 50 items, dataset 'toy' has 7 x 9; use the"
    ):
        export_embeddings(model, dataset(), tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_id_that_numpy_would_cut(tmp_path, suffix):
    ids = [f"{n}" for n in range(USERS - 1)] + ["a\0"]
    ds = dataset(users=Vocabulary(np.array(ids, object), kind="user"))
    path = tmp_path / f"out.{suffix}"
    if suffix == "npz":
        with pytest.raises(
            DataError, match=r"user id 'a\\x00' ends in a NUL character; rename it or export to Parquet"
        ):
            export_embeddings(Dot(), ds, path)
    else:
        export_embeddings(Dot(), ds, path)
        assert load_export(path).users.ids.tolist() == ids


@pytest.mark.parametrize(
    ("name", "format", "error", "message"),
    [
        ("out.txt", None, UsageError, "'out.txt' names no export format; end it in .npz or .parquet"),
        ("out", None, UsageError, "'out' names no export format"),
        ("out.npz", "parqet", UnknownNameError, "unknown export format 'parqet'; did you mean 'parquet'"),
    ],
)
def test_format_errors(tmp_path, name, format, error, message):
    with pytest.raises(error, match=message):
        export_embeddings(Dot(), dataset(), tmp_path / name, format)


def test_format_beats_suffix(tmp_path):
    export_embeddings(Dot(), dataset(), tmp_path / "out.bin", format="parquet")
    assert load_export(tmp_path / "out.bin").user.shape == (USERS, DIM)


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot write .*file/out.npz"):
        export_embeddings(Dot(), dataset(), tmp_path / "file" / "out.npz")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda model: model.recommend("zoe"), UsageError, "k is 10; choose it from 1 to 9"),
        (lambda model: model.recommend("zoe", k=1), DataError, "unknown user 'zoe'"),
        (
            lambda model: model.recommend("ü0", k=1, exclude="al"),
            UnknownNameError,
            "unknown exclude 'al'; did you mean 'all'",
        ),
        (lambda model: model.score("ü0", ["i 1", "i 99"]), DataError, "unknown item 'i 99'"),
    ],
)
def test_errors_of_an_export(exported, call, error, message):
    model = ExportedModel.load(exported)
    with pytest.raises(error, match=message):
        call(model)


def change(path, **changes):
    with np.load(path) as archive:
        arrays = dict(archive)
    for name, value in changes.items():
        if value is None:
            del arrays[name]
        else:
            arrays[name] = value
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": None}, "no 'user is not a file in the archive'|no 'user'"),
        ({"user": np.ones((USERS, DIM + 1), np.float32)}, "user and item differ in their dimension"),
        (
            {"user": np.ones((USERS + 1, DIM), np.float32)},
            r"user has shape \(8, 4\) and type float32 for 7 ids",
        ),
        ({"item__view": np.ones((ITEMS, 3), np.int64)}, "item__view has shape .* type int64"),
        ({"user_ids": np.array(["a"] * USERS)}, "user ids contain duplicates"),
        ({"user_ids": np.array([{}] * USERS)}, "Object arrays cannot be loaded"),
        ({"seen_target_indptr": np.zeros(USERS + 1, np.int64)}, "seen_target does not fit the ids"),
        ({"seen_all_indptr": np.zeros(2, np.int64)}, "seen_all does not fit the ids"),
        ({"meta": np.array("{")}, "usable mbgraph export"),
        ({"meta": np.array("[]")}, "its meta names another format"),
        (
            {"meta": np.array('{"format": "mbgraph-export", "version": 9}')},
            "version 9 of the format, this mbgraph reads 1",
        ),
    ],
)
def test_broken_npz(exported, changes, message):
    change(exported, **changes)
    with pytest.raises(DataError, match=message):
        load_export(exported)


def test_items_beyond_the_catalogue(exported):
    count = len(load_export(exported).seen["all"].indices)
    change(exported, seen_all_indices=np.full(count, ITEMS, np.int32))
    with pytest.raises(DataError, match=r"seen_all has items beyond the 9 ids\); write it again"):
        load_export(exported)


@pytest.mark.parametrize("keep", [0, 1, 30, 0.3, 0.6, 0.99])
def test_truncated(tmp_path, suffix, keep):
    path = tmp_path / f"out.{suffix}"
    export_embeddings(Dot(), dataset(), path)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(DataError, match=f"{path.name} is not a usable mbgraph export"):
        load_export(path)


def test_other_files(tmp_path):
    (tmp_path / "a.npz").write_text("hello")
    np.save(tmp_path / "b.npy", np.ones(3))
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "c.parquet")
    np.savez(tmp_path / "d.npz", a=np.ones(3))
    for name, message in (("a.npz", "neither"), ("b.npy", "neither"), ("c.parquet", "no "), ("d.npz", "no ")):
        with pytest.raises(DataError, match=f"{name} is not a usable mbgraph export .{message}"):
            load_export(tmp_path / name)
    with pytest.raises(DataError, match=r"cannot read .*missing.npz: No such file"):
        load_export(tmp_path / "missing.npz")
