"""The driver of the comparison with published programs; a program of a few lines stands for one of theirs."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch

from mbgraph.data.interactions import Pairs
from mbgraph.errors import RunError, UsageError
from mbgraph.files import shipped

PROGRAM = """
import sys
import torch

print("a program prints as it likes")
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.Adam(model.parameters())
for step in range({most}):
    optimizer.zero_grad()
    loss = model(torch.ones(1, 3)).sum()
    (0 * loss + 3).backward()  # two losses of a step count as one
    (0 * model(torch.ones(1, 3)).sum() + 1).backward()
    optimizer.step()
sys.exit("no more steps for " + sys.argv[1])
"""


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(shipped("benchmarks") / "speed"))
    monkeypatch.setenv("GOMP_SPINCOUNT", "4000")
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    yield [importlib.import_module(name) for name in ("references", "reference_data")]
    for name in ("references", "reference_data"):
        sys.modules.pop(name, None)


@pytest.fixture
def references(modules):
    return modules[0]


@pytest.fixture
def data(modules):
    return modules[1]


@pytest.fixture
def reference(data):
    return data.Reference("crgcn", "somebody/CRGCN", "abc", "main.py", lambda ds, folder: ["shop"])


def checkout(folder, most=9):
    folder.mkdir()
    (folder / "main.py").write_text(PROGRAM.format(most=most), encoding="utf-8")
    (folder / "weights.bin").write_text("large", encoding="utf-8")
    return folder


# --- files ----------------------------------------------------------------------------------------------------------


def test_lists_hold_distinct_items_in_order(data):
    pairs = Pairs(np.array([4, 0, 4, 4]), np.array([2, 1, 0, 2]))
    assert data.lists(pairs, Pairs(np.array([0]), np.array([5]))) == {0: [1, 5], 4: [0, 2]}


def test_dictionaries_are_what_pairs_are(data, tiny, tmp_path):
    data.write_dictionaries(tiny, tmp_path / "data" / "taobao")
    folder = tmp_path / "data" / "taobao"

    def read(name):
        rows = json.loads((folder / f"{name}_dict.txt").read_text(encoding="utf-8"))
        return {(int(user) - 1, item - 1) for user, items in rows.items() for item in items}

    def pairs(*parts):
        return {(user, item) for part in parts for user, item in zip(part.user, part.item, strict=True)}

    edges = list(tiny.edges.values())
    for name, part in zip(("view", "cart", "buy"), edges, strict=True):
        assert read(name) == pairs(part)
        lines = np.loadtxt(folder / f"{name}.txt", dtype=int, ndmin=2) - 1
        assert set(map(tuple, lines.tolist())) == pairs(part)
    assert read("all") == pairs(*edges)
    assert read("train") == pairs(edges[-1])
    assert (read("validation"), read("test")) == (pairs(tiny.valid), pairs(tiny.test))
    assert json.loads((folder / "count.txt").read_text()) == {"user": tiny.num_users, "item": tiny.num_items}
    sampled = np.loadtxt(folder / "pos_sampling.txt", dtype=int)
    assert {(u - 1, i - 1, b, one) for u, i, b, one in sampled.tolist()} == {
        (user, item, number, 1) for number, part in enumerate(edges) for user, item in pairs(part)
    }


def test_lists_and_weighted_pairs_are_read_back(data, tmp_path):
    data.write_lists({0: [1, 5], 4: [0]}, tmp_path / "new" / "train.txt")
    assert (tmp_path / "new" / "train.txt").read_text() == "0 1 5\n4 0\n"
    data.write_weighted(Pairs(np.array([4, 0]), np.array([2, 1])), tmp_path / "train.txt")
    assert (tmp_path / "train.txt").read_text() == "4 2 1\n0 1 1\n"


def test_every_reference_writes_what_its_program_reads(data, small, tmp_path):
    for model, one in data.REFERENCES.items():
        assert one.model == model
        assert len(one.commit) == 7
        if len(small.behaviors) not in one.behaviors:
            continue
        folder = tmp_path / model / "code"
        folder.mkdir(parents=True)
        arguments = one.write(small, folder)
        assert all(isinstance(argument, str) for argument in arguments)
        assert any(path.is_file() for path in (tmp_path / model).rglob("*"))


# --- turns ----------------------------------------------------------------------------------------------------------


def test_a_program_steps_when_it_is_told_and_says_why_it_ends(references, reference, tiny, tmp_path):
    folder = checkout(tmp_path / "clone", most=7)
    program = references.Program(reference, folder, tiny, sys.executable, 1)
    try:
        assert program.started["parameters"] == 8
        assert program.started["threads"] == 1
        steps = program.steps(2) + program.steps(3)
        with pytest.raises(RunError, match="the reference ended with 1: .* no more steps for shop"):
            program.steps(2)
    finally:
        program.close()
    assert [step["loss"] for step in steps] == [4.0] * 5
    assert all(0 <= step["draw"] <= step["cpu"] for step in steps)
    assert all(step["wall"] > 0 for step in steps)
    assert program.command == "python main.py shop"
    assert sorted(path.name for path in folder.iterdir()) == ["main.py", "weights.bin"]


def test_a_checkout_without_the_program_says_which_one(references, reference, tiny, tmp_path):
    with pytest.raises(UsageError, match=r"has no main.py; clone somebody/CRGCN at abc"):
        references.Program(reference, tmp_path, tiny, sys.executable, 1)


def test_a_number_of_behaviors_that_a_program_does_not_know(references, data, tiny, tmp_path):
    one = data.Reference("crgcn", "somebody/CRGCN", "abc", "main.py", lambda ds, folder: [], behaviors=(4,))
    with pytest.raises(UsageError, match="has no place for 3 behaviors; choose another dataset"):
        references.compare(one, tmp_path, tiny, sys.executable, 1, 1, 1)


def test_a_row_has_both_sides(references, reference, small, tmp_path):
    threads = torch.get_num_threads()
    try:
        row = references.compare(reference, checkout(tmp_path / "clone"), small, sys.executable, 1, 2, 2)
    finally:
        torch.set_num_threads(threads)
    assert (row["steps ours"], row["steps reference"]) == (4, 4)
    assert (row["model"], row["dataset"], row["parameters reference"]) == ("crgcn", small.name, 8)
    assert row["loss reference"] == 4.0
    assert 0 < row["loss ours"] < 3
    rounded = 0.00001 / row["cpu s ours"]
    assert row["cpu ratio"] == pytest.approx(row["cpu s reference"] / row["cpu s ours"], rel=0.02 + rounded, abs=0.01)


# --- figures --------------------------------------------------------------------------------------------------------


def steps(*cpu, **more):
    return [{"cpu": value, "wall": 2 * value, "draw": value / 4, "loss": value, **more} for value in cpu]


def test_a_summary_holds_medians(references):
    row = references.summary(steps(4.0, 100.0, 8.0), steps(1.0, 2.0, 90.0, 2.0), 10)
    assert (row["cpu s reference"], row["cpu s ours"], row["cpu ratio"]) == (8.0, 2.0, 4.0)
    assert (row["wall s reference"], row["wall s ours"], row["wall ratio"]) == (16.0, 4.0, 4.0)
    assert (row["drawing s reference"], row["drawing s ours"]) == (2.0, 0.5)
    assert row["ratio without drawing"] == 4.0
    assert row["loss ours"] == 31.0  # as many steps as the reference took


def test_an_epoch_drawn_at_once_is_shared_out(references):
    row = references.summary(steps(4.0, 4.0, draw=None, sampler=20.0), steps(1.0, 1.0), 10)
    assert (row["drawing s reference"], row["cpu s reference"]) == (2.0, 6.0)
    assert row["ratio without drawing"] == round((6.0 - 2.0) / 0.75, 2)


def test_rows_of_other_models_stay(references):
    old = [{"model": "a", "dataset": "x", "n": 1}, {"model": "b", "dataset": "x", "n": 1}]
    new = [{"model": "a", "dataset": "y", "n": 2}, {"model": "b", "dataset": "x", "n": 2}]
    assert references.merged(old, new) == [old[0], new[1], new[0]]
