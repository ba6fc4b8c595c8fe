"""How the parts of a dataset are arranged for a run, and what is told before it."""

import torch

from mbgraph.config import FitConfig
from mbgraph.run import preparation, prepare_dataset
from mbgraph.run.preparation import make_model, notices


def test_validation_choices(small_folder):
    config = FitConfig(dataset=str(small_folder))
    given = prepare_dataset(config)
    assert given.metadata["validation"] == "given"
    train = len(given.edges["buy"])
    none = prepare_dataset(config.replace(validation="none"))
    assert (len(none.valid), len(none.edges["buy"])) == (0, train)
    merged = prepare_dataset(config.replace(validation="merge"))
    assert (len(merged.valid), len(merged.edges["buy"])) == (0, train + len(given.valid))
    held = prepare_dataset(config.replace(validation="holdout"))
    assert len(held.valid) > 0
    assert len(held.edges["buy"]) + len(held.valid) == train + len(given.valid)
    assert prepare_dataset(config.replace(validation="holdout", seed=9)).content_hash() == held.content_hash()
    assert len(given.test) == len(none.test) == len(held.test) == len(merged.test)


def test_an_untrained_model_keeps_every_train_pair(small, tmp_path):
    from mbgraph.data.formats.npz import write_npz

    write_npz(small.replace(splits={"test": small.test}), tmp_path / "bare")
    for model, choice in (("popularity", "none"), ("lightgcn", "holdout")):
        ds = prepare_dataset(FitConfig(dataset=str(tmp_path / "bare"), model=model))
        assert ds.metadata["validation"] == choice
        assert len(ds.edges["buy"]) + len(ds.valid) == len(small.edges["buy"])


def test_behaviors_keep_the_dataset_s_order(small):
    model = make_model(FitConfig(options={"embedding_dim": 4}), small)
    assert model.behaviors == small.behaviors
    assert make_model(FitConfig(seed=3, options={"embedding_dim": 4}), small).rng == 3


def test_auto_says_that_it_takes_cuda(small, monkeypatch):
    monkeypatch.setattr(preparation, "resolve_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Fast Card")
    small = small.replace(metadata={"validation": "given"})
    assert notices(FitConfig(), small) == ["--device auto took CUDA: Fast Card"]
    assert notices(FitConfig(device="cuda"), small) == []
    assert notices(FitConfig(model="popularity"), small) == []


def test_a_behavior_of_purchases_is_named(tiny):
    bought = tiny.edges["buy"]
    leaking = tiny.replace(edges={"view": tiny.edges["view"], "view_buy": bought[:2], "buy": bought})
    config = FitConfig(model="conversion")
    assert notices(config, tiny.replace(edges={"view": tiny.edges["view"], "buy": bought})) == []
    (line,) = notices(config, leaking)
    assert line.startswith("every pair of 'view_buy' is a pair of 'buy': a model can read the answer in it")
