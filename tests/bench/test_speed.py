"""What the benchmark counts and how it reports; its times are nobody's test."""

import pytest
import torch

from mbgraph.bench import speed
from mbgraph.bench.machine import copy_bandwidth, gemm_rate, median_seconds
from mbgraph.models.rmbrec import RMBRec
from mbgraph.training.trainer import Trainer


def test_median_seconds_leaves_warm_calls_out(monkeypatch):
    ticks = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.0])
    monkeypatch.setattr("mbgraph.bench.machine.time.perf_counter", lambda: next(ticks))
    calls = []
    assert median_seconds(lambda: calls.append(1), repeats=3, warm=2) == 2.0
    assert len(calls) == 5


def test_the_machine_copies_and_multiplies():
    assert 1e8 < copy_bandwidth(megabytes=8, repeats=3) < 1e13
    assert 1e8 < gemm_rate(size=128, repeats=3) < 1e15


def test_a_row_holds_ratio_and_distance_from_the_floor():
    part = speed.Part("epoch", "shop", "s", 2.0, 16.0, 0.5, "8x", 5)
    row = part.row()
    assert row["ratio"] == 8.0
    assert row["times floor"] == 4.0
    assert speed.Part("memory", "shop", "MiB", 2.0).row()["ratio"] == ""


def test_step_work_by_hand(tiny):
    """One layer: forward and backward of the batch's rows only, plus what is written."""
    model = RMBRec(tiny.graph, tiny.target, variant="official", embedding_dim=8, num_layers=1)
    trainer = Trainer(model, tiny, device="cpu", batch_size=6)
    batch = next(trainer.batches.epoch(1))
    moved = 0
    for name in tiny.behaviors:
        pairs = tiny.edges[name]
        items = torch.unique(torch.cat([batch.positives[name], batch.negatives[name]])).tolist()
        chosen = len(pairs) + sum(int((pairs.item == item).sum()) for item in items if item >= 0)
        moved += 2 * chosen * (8 * 4 + 4) + (7 + 6) * 8 * 4  # every user is in the batch; with the padding nodes
    assert speed.step_work(trainer) == (moved, 2 * 3 * 2.0 * 6 * 6 * 8)


@pytest.mark.slow
def test_every_part_is_measured_on_a_small_dataset(monkeypatch):
    monkeypatch.setattr(speed, "copy_bandwidth", lambda: copy_bandwidth(megabytes=8, repeats=3))
    monkeypatch.setattr(speed, "gemm_rate", lambda: gemm_rate(size=128, repeats=3))
    settings = speed.Settings(repeats=1, plain_steps=1, build_repeats=1, edges=(), whole_fit=False)
    parts = list(speed.measure("demo", settings, lambda text: None))
    names = [part.part for part in parts]
    assert names[2:4] == ["text files to ready graph", "npz folder to ready graph"]
    measured = {part.part: part.ours for part in parts}
    moved = measured["one layer of view, float32 rows: bytes moved"] / measured["the machine: a copy in main memory"]
    assert measured["one layer of view, float32 rows: over a copy's"] == pytest.approx(moved)
    assert all(part.ours > 0 for part in parts)
    assert {row["part"] for row in speed.step_shares("demo", steps=1)} >= {"encoder, forward", "Adam", "sampler"}
