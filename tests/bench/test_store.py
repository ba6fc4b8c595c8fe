"""The store: what a run is filed under, and who may write."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.bench import identity
from mbgraph.bench.identity import run_address, significant
from mbgraph.bench.jobs import expand
from mbgraph.bench.sources import Recipe, choose_datasets, facts_of, made
from mbgraph.bench.store import Store
from mbgraph.config import FitConfig
from mbgraph.data.alignment import alignment
from mbgraph.data.catalog import load_dataset
from mbgraph.data.formats.npz import write_npz
from mbgraph.errors import RunError, UsageError
from mbgraph.models import MODELS

numbers = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 3),
        "num_layers": st.integers(1, 3),
        "epochs": st.integers(1, 3),
        "weight": st.sampled_from([0.0, 0.5, 1.0]),
    }
)


def config(values, **more):
    return FitConfig(
        seed=values["seed"],
        options={"num_layers": values["num_layers"]},
        training={"epochs": values["epochs"]},
        regularizers=[{"name": "rex", "weight": values["weight"]}],
        **more,
    )


@given(numbers, numbers)
def test_runs_share_an_address_exactly_when_they_are_the_same(first, second):
    one, other = (run_address(config(values), "hash", 1000) for values in (first, second))
    assert (one == other) == (first == second)


@given(numbers, st.integers(0, 64), st.sampled_from(["auto", "cpu"]), st.sampled_from(["demo", "elsewhere"]))
def test_where_a_run_runs_is_no_part_of_its_address(values, threads, device, dataset):
    here = run_address(config(values), "hash", 1000)
    assert run_address(config(values, threads=threads, device=device, dataset=dataset), "hash", 1000) == here
    assert run_address(config(values), "other data", 1000) != here


def test_defaults_and_the_same_values_written_out_are_one_run():
    assert run_address(FitConfig(), "h", 1000) == run_address(FitConfig().resolve(1000), "h", 1000)


def test_the_code_counts_without_comments_docstrings_and_space():
    text = 'def f(x):\n    """Doc.\n\n    More."""\n    # why\n    return x + 1\n'
    assert significant(text) == "def f(x):\n    return x + 1"
    assert significant(text) == significant("def f(x):\n\n    return x + 1  # other\n")
    assert significant(text) != significant(text.replace("+ 1", "+ 2"))
    assert significant('x = "# no comment"\n') == 'x = "# no comment"'


def test_changed_code_changes_the_address_of_its_own_models(tmp_path, monkeypatch):
    """SimGCL stands on what models of one graph share, the anchors do not; packages count as a whole."""
    names = {name: {file.name for file in identity._model_files(MODELS.get(name))} for name in MODELS}
    assert {"simgcl.py", "one_graph.py", "base.py"} <= names["simgcl"]
    assert "one_graph.py" not in names["conversion"]
    assert "simgcl.py" not in names["lightgcn"]
    assert {"contrasts.py", "options.py", "ragged.py", "history.py"} <= names["mbssl"]
    assert {"rows.py", "folds.py", "kernel.py"} <= names["twostage"]


def test_the_hash_of_code_is_that_of_its_files(tmp_path):
    file = tmp_path / "a.py"
    hashes = []
    for text in ("x = 1\n", "x = 1  # one\n", "x = 2\n"):
        file.write_text(text)
        identity._hash_of.cache_clear()
        hashes.append(identity._hash_of((file,)))
    identity._hash_of.cache_clear()
    assert hashes[0] == hashes[1] != hashes[2]


def test_everything_that_computes_is_hashed():
    files = identity._files(identity._COMPUTES)
    assert all(file.is_file() for file in (*files, *identity._files(identity._PREPARES)))
    assert {"trainer.py", "irm.py", "ranking.py", "encode.py", "propagation.py"} <= {file.name for file in files}


def test_a_store_of_another_format_is_one_line(tmp_path):
    (tmp_path / "store.json").write_text(json.dumps({"format": 99, "mbgraph": "7.0"}))
    with pytest.raises(RunError, match=r"was written by mbgraph 7.0 in format 99, not 1; use that version, or another"):
        Store(tmp_path)


def test_a_folder_of_other_things_is_no_store(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(RunError, match="holds other things than runs of studies; choose another --store"):
        Store(tmp_path)


def test_looking_makes_nothing(study, store):
    for job in expand(study):
        assert store.address(job, make=False) is None
        assert store.status(None) == "missing"
    assert not store.path.exists()


def test_recipes_are_made_once_and_lie_in_the_store(study, store, small_folder):
    noisy = Recipe(str(small_folder), ("cart",), add=0.5, seed=3)
    path = store.dataset(noisy)
    dataset = load_dataset(path)
    assert dataset.behaviors == ("view", "buy")
    assert dataset.counts["view"] == 1800
    assert dataset.content_hash() == made(noisy).content_hash()
    before = os.stat(os.path.join(path, "view.npz")).st_mtime_ns
    assert store.dataset(noisy) == path
    assert os.stat(os.path.join(path, "view.npz")).st_mtime_ns == before
    assert store.dataset(Recipe(str(small_folder))) == str(small_folder)


def test_the_same_data_under_another_path_are_the_same_runs(text, write, store, small, tmp_path):
    from mbgraph.bench.study import Study

    write_npz(small, tmp_path / "copy")
    study = Study.load(write(text))
    here = [store.address(job) for job in expand(study)]
    there = [store.address(job) for job in expand(study, [str(tmp_path / "copy")])]
    assert here == there
    assert len(set(here)) == len(here)


def test_the_target_cannot_be_dropped(small_folder):
    with pytest.raises(UsageError, match="'buy' is the target of 'small'"):
        made(Recipe(str(small_folder), ("buy",)))


def test_stand_ins_have_low_and_high_alignment(data_home):
    chosen, notes = choose_datasets(["beibei", "taobao15k"])
    assert chosen == ("demo-low", "demo-high")
    assert notes[0] == "beibei is not on disk; get it with: mbgraph data download beibei"
    assert notes[1].startswith("taobao15k is not on disk; see: mbgraph data show taobao15k")
    assert "synthetic" in notes[-1]
    low, high = (alignment(made(Recipe(name))) for name in chosen)
    assert low.dt > 0.6 > 0.1 > high.dt
    assert max(low.bar.values()) < min(high.bar.values())
    assert all(facts_of(name).synthetic and not facts_of(name).as_published for name in chosen)


def test_a_dataset_that_only_has_the_name_of_a_published_one_is_told_apart(small, data_home):
    write_npz(small, data_home / "beibei")
    assert not facts_of("beibei").as_published
