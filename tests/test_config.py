"""Configuration: flags over file over defaults, unknown keys named."""

import pytest

from mbgraph.config import FitConfig, parse_assignment, parse_regularizer, read_config
from mbgraph.errors import DataError, UnknownNameError, UsageError

OPTIONS = ("variant", "embedding_dim", "num_layers", "rng")


def test_values_are_read_as_toml_would():
    assert parse_assignment("num_layers=2") == ("num_layers", 2)
    assert parse_assignment("lr = 1e-3") == ("lr", 1e-3)
    assert parse_assignment("k=[5, 10]") == ("k", [5, 10])
    assert parse_assignment("layer_norm=false") == ("layer_norm", False)
    assert parse_assignment("combine=mean") == ("combine", "mean")
    with pytest.raises(UsageError, match="cannot read 'lr'; write it as key=value"):
        parse_assignment("lr")


def test_regularizers_are_read():
    assert parse_regularizer("rex") == {"name": "rex"}
    assert parse_regularizer("infonce:weight=0.8,direction=anchor") == {
        "name": "infonce",
        "weight": 0.8,
        "direction": "anchor",
    }


def test_set_finds_the_section():
    config = FitConfig().set("num_layers", 2, OPTIONS).set("lr", 0.1, OPTIONS).set("mask", "none", OPTIONS)
    config = config.set("seed", 7, OPTIONS).set("training.epochs", 3, OPTIONS)
    assert (config.options, config.seed) == ({"num_layers": 2}, 7)
    assert (config.training, config.evaluation) == ({"lr": 0.1, "epochs": 3}, {"mask": "none"})
    with pytest.raises(
        UnknownNameError, match="configuration key of model 'rmbrec' 'num_layer'; did you mean 'num_layers'"
    ):
        FitConfig().set("num_layer", 2, OPTIONS)
    with pytest.raises(UnknownNameError):
        FitConfig().set("options.lr", 0.1, OPTIONS)


def test_file_round_trip(tmp_path):
    import tomli_w

    config = FitConfig(training={"lr": 0.5}, regularizers=[{"name": "rex", "weight": 2.0}], evaluation={"k": (5,)})
    (tmp_path / "c.toml").write_text(tomli_w.dumps(config.to_dict()))
    assert read_config(tmp_path / "c.toml").to_dict() == config.to_dict()


def test_errors(tmp_path):
    path = tmp_path / "c.toml"
    for text, message in (
        ("modle = 'x'", "unknown configuration key 'modle'; did you mean 'model'"),
        ("[training]\nlrr = 1", "unknown training option 'lrr'; did you mean 'lr'"),
        ("training = 3", r"'training' must be a table; write it as \[training\]"),
        ("[[regularizers]]\nweight = 1", "a regularizer entry has no name"),
        ("seed = -1", "seed must be a non-negative integer"),
        ("validation = 'hold'", "unknown validation 'hold'"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_config(path)
    path.write_text("= 3")
    with pytest.raises(DataError, match=r"c.toml is not valid TOML"):
        read_config(path)
    with pytest.raises(DataError, match="cannot read"):
        read_config(tmp_path / "none.toml")
