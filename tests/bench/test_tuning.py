"""Search spaces and searches: the same trials whatever happened before, and never a look at the test pairs."""

from __future__ import annotations

import importlib.util
import json
import os

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.bench import tuning
from mbgraph.bench.space import Range, SearchSpace, read_space
from mbgraph.bench.tuning import tune
from mbgraph.cli.main import cli
from mbgraph.config import read_config
from mbgraph.errors import RunError, UsageError
from mbgraph.locks import hold

SPACE = """\
trials = 4
seed = 3

[base]
dataset = "{data}"
model = "lightgcn"
training = {{ epochs = 2 }}

[axes]
"options.num_layers" = [1, 2, 3]
"training.lr" = {{ low = 1e-4, high = 1e-2, log = true }}
"""


@pytest.fixture
def file(tmp_path, small_folder):
    def written(*changes):
        text = SPACE.format(data=small_folder.as_posix())
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "space.toml"
        path.write_text(text)
        return path

    return written


numbers = st.integers(1, 50)


@given(numbers, numbers, st.floats(0, 1, exclude_max=True), st.booleans(), st.booleans())
def test_values_lie_in_their_range(low, more, share, log, integer):
    axis = Range(low=low, high=low + more, log=log, integer=integer)
    value = axis.at(share)
    assert low <= value <= low + more
    assert isinstance(value, int) == integer
    assert axis.at(0.0) == pytest.approx(low)


def test_whole_numbers_are_all_as_likely():
    axis = Range(low=1, high=4, integer=True)
    assert [axis.at((n + 0.5) / 8) for n in range(8)] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_a_trial_does_not_depend_on_the_others(file):
    space = read_space(file())
    assert space.point(3) == space.replace(trials=100).point(3)
    assert space.point(3) != space.replace(seed=4).point(3)
    assert len({space.point(number)["training.lr"] for number in range(20)}) == 20


def test_a_grid_has_every_point_once(file):
    space = read_space(
        file(("{ low = 1e-4, high = 1e-2, log = true }", "[0.1, 0.2]"), ("trials = 4", 'sampler = "grid"'))
    )
    points = [tuple(space.point(number).values()) for number in range(space.size)]
    assert len(set(points)) == space.size == 6


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trials = 4", "trails = 4", r"unknown option of the search space 'trails'; did you mean 'trials'"),
        ('"lightgcn"', '"lightgnc"', r":4: unknown model 'lightgnc'; did you mean 'lightgcn'"),
        ('"options.num_layers"', '"options.layers"', r":10: unknown option of model 'lightgcn' 'layers'"),
        ('"options.num_layers"', '"num_layers"', r":10: 'num_layers' is no option of a grid"),
        ("high = 1e-2", "high = 1e-5", r":11: low of a range must be below high"),
        ("low = 1e-4", "low = 0", r":11: a logarithmic range must begin above 0"),
        ("[1, 2, 3]", "[]", r":10: options.num_layers must be a list of values or a range"),
        ("trials = 4", 'sampler = "grid"', r":9: training.lr is a range, which has no grid"),
    ],
)
def test_bad_spaces_are_refused_with_file_and_line(file, old, new, message):
    with pytest.raises(UsageError, match=message):
        read_space(file((old, new)))


def test_a_search_goes_on_and_ends_the_same(file, tmp_path):
    space = read_space(file())
    whole, _ = tune(space, tmp_path / "whole")
    seen = []

    def stop(trial):
        seen.append(trial.number)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(space, tmp_path / "parts", on_trial=stop)
    parts, interrupted = tune(space, tmp_path / "parts", on_trial=lambda trial: seen.append(trial.number))
    assert not interrupted
    assert seen == [0, 1, 2, 3]
    assert [(t.number, t.value) for t in parts] == [(t.number, t.value) for t in whole]
    assert [t.value for t in whole] == sorted((t.value for t in whole), reverse=True)
    best = read_config(tmp_path / "parts" / "best.toml")
    assert best.options == {"num_layers": whole[0].values["options.num_layers"]}
    assert best.training["lr"] == pytest.approx(whole[0].values["training.lr"])


def test_the_test_pairs_are_never_read(file, tmp_path, monkeypatch):
    from mbgraph.training import trainer

    splits = []

    def watched(model, dataset, split="test", **how):
        splits.append((split, set(dataset.splits)))
        return evaluate(model, dataset, split=split, **how)

    evaluate = trainer.evaluate
    monkeypatch.setattr(trainer, "evaluate", watched)
    tune(read_space(file(("trials = 4", "trials = 1"))), tmp_path / "search")
    assert set(map(str, splits)) == {"('valid', {'valid'})"}


def test_a_folder_of_another_search_is_refused(file, tmp_path):
    tune(read_space(file(("trials = 4", "trials = 1"))), tmp_path / "search")
    assert len(tune(read_space(file(("trials = 4", "trials = 2"))), tmp_path / "search")[0]) == 2
    with pytest.raises(UsageError, match="holds a search of another space or other data; choose another --out"):
        tune(read_space(file(("[1, 2, 3]", "[1]"))), tmp_path / "search")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("")
    with pytest.raises(UsageError, match="already exists and is not empty; choose another --out"):
        tune(read_space(file()), tmp_path / "other")
    with pytest.raises(UsageError, match="x is a file; choose another folder"):
        tune(read_space(file()), tmp_path / "other" / "x")


def test_two_searches_do_not_share_a_folder_at_once(file, tmp_path):
    space = read_space(file(("trials = 4", "trials = 1")))
    tune(space, tmp_path / "search")
    message = rf"process {os.getpid()} on .+ is writing .*search; wait until it ends, or choose another folder"
    with hold(tmp_path / "search" / "search.lock"), pytest.raises(RunError, match=message):
        tune(space, tmp_path / "search")


def test_who_comes_second_writes_nothing(file, tmp_path, monkeypatch):
    """Of two searches that saw an empty folder, the one that holds the lock says whose it is."""
    monkeypatch.setattr(tuning, "check_folder", lambda *given, **options: None)
    with hold(tmp_path / "search" / "search.lock"), pytest.raises(RunError, match="is writing"):
        tune(read_space(file()), tmp_path / "search")
    assert not (tmp_path / "search" / "space.json").exists()


def test_what_cannot_be_searched_is_said(file, tmp_path):
    anchor = SearchSpace(base={"model": "conversion"}, axes={"options.smoothing": (1.0, 2.0)})
    with pytest.raises(UsageError, match="model 'conversion' is not trained; there is nothing to search"):
        tune(anchor, tmp_path / "a")
    space = read_space(file(('model = "lightgcn"', 'model = "lightgcn"\nvalidation = "none"')))
    with pytest.raises(UsageError, match="has no validation pairs; set validation"):
        tune(space, tmp_path / "b")


def test_a_failed_trial_is_a_line_of_the_table(file, tmp_path):
    space = read_space(
        file(("{ low = 1e-4, high = 1e-2, log = true }", "[0.001, 1e30]"), ("trials = 4", 'sampler = "grid"'))
    )
    trials, _ = tune(space, tmp_path / "search")
    assert len(trials) == 6
    failed = [trial for trial in trials if trial.status == "failed"]
    assert failed
    assert all(trial.value is None and trial.error for trial in failed)
    assert {trial.values["training.lr"] for trial in failed} == {1e30}
    assert trials[0].value is not None


@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed (the extra tune)")
def test_optuna_goes_on_and_prunes(file, tmp_path):
    space = read_space(
        file(
            ("trials = 4", 'trials = 9\nsampler = "optuna"'), ("epochs = 2", "epochs = 6"), ("low = 1e-4", "low = 1e-9")
        )
    )
    first, _ = tune(space.replace(trials=5), tmp_path / "search")
    assert len(first) == 5
    trials, _ = tune(space, tmp_path / "search")
    assert len(trials) == 9
    assert {trial.number for trial in first} < {trial.number for trial in trials}
    assert {trial.status for trial in trials} <= {"done", "pruned"}
    assert (tmp_path / "search" / "optuna.db").is_file()
    assert trials[0].status == "done" or trials[0].value is not None


def test_without_optuna_it_says_what_to_install(file, tmp_path, monkeypatch):
    from mbgraph.bench import tuning

    monkeypatch.setattr(tuning.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r'sampler = "optuna" needs optuna; install it with: pip install "mbgraph\[tune\]"'
    ):
        tune(read_space(file(("trials = 4", 'sampler = "optuna"'))), tmp_path / "search")


def test_the_command_prints_trials_and_the_way_on(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = file()
    result = CliRunner().invoke(cli, ["tune", str(path), "--trials", "2"])
    assert result.exit_code == 0, result.output
    assert "Best of 2 trials" in result.stdout
    assert "mbgraph fit --config runs/tune-space/best.toml" in result.stdout.replace("\\", "/")
    again = CliRunner().invoke(cli, ["tune", str(path), "--trials", "2", "--json"])
    answer = json.loads(again.stdout)
    assert [len(answer["trials"]), answer["interrupted"]] == [2, False]
    assert "trial" not in again.stderr
