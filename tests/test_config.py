"""Configuration: flags over file over defaults, everything checked, one line for whatever is wrong."""

from typing import Annotated, ClassVar

import numpy as np
import pytest
import tomli_w
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from mbgraph.cli.main import cli
from mbgraph.config import FitConfig, configured, read_config
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.evaluation.options import EvaluationOptions
from mbgraph.models import MODELS, EmbeddingRecommender
from mbgraph.models.options import ModelOptions, TrainingOptions
from mbgraph.regularizers import REGULARIZERS, InfoNCE, REx
from mbgraph.regularizers.base import parse_regularizer

WHOLE, NUMBER, SWITCH = "a whole number", "a number", "true or false"
POSITIVE, WEIGHT = f"{NUMBER} above 0 and of at most 1000000", f"{NUMBER} from 0 to 1000000"
COUNT = f"{WHOLE} from 0 to 1000000"

SETTINGS = [
    # option, text, what the message must say; each is given as --set, the training and evaluation ones as flags too
    ("layer_norm", "maybe", f"layer_norm of model 'rmbrec' must be {SWITCH}, got 'maybe'; the default is true"),
    ("layer_norm", "2", f"must be {SWITCH}, got 2"),
    ("padding", "", f"padding of model 'rmbrec' must be {SWITCH}, got ''"),
    ("embedding_dim", "8.5", f"embedding_dim of model 'rmbrec' must be {WHOLE} from 1 to 65536, got 8.5; the default"),
    ("embedding_dim", "0", f"must be {WHOLE} from 1 to 65536, got 0"),
    ("embedding_dim", "wide", f"must be {WHOLE} from 1 to 65536, got 'wide'"),
    ("embedding_dim", "[8]", r"must be a whole number from 1 to 65536, got \[8\]"),
    ("num_layers", "100000", f"num_layers of model 'rmbrec' must be {WHOLE} from 0 to 64, got 100000"),
    ("num_layers", "-1", f"{WHOLE} from 0 to 64, got -1"),
    ("num_layers", "true", f"{WHOLE} from 0 to 64, got True"),
    ("gamma", "-1", f"gamma of model 'rmbrec' must be {WEIGHT}, got -1; the default is 0.0"),
    ("gamma", "nan", f"{WEIGHT}, got nan"),
    ("combine", "max", r"unknown combine of model 'rmbrec' 'max'; (choose from: mean, sum|did you mean)"),
    ("row_dtype", "float16", r"unknown row_dtype of model 'rmbrec' 'float16'; did you mean 'bfloat16'\?"),
    ("backend", "cuda", "unknown backend of model 'rmbrec' 'cuda'; choose from: auto, dgl, torch, triton"),
    ("variant", "papr", r"unknown variant of model 'rmbrec' 'papr'; did you mean 'paper'\?"),
    ("epochs", "2.5", f"epochs of the training options must be {WHOLE} from 1 to 1000000, got 2.5; the default"),
    ("epochs", "abc", f"{WHOLE} from 1 to 1000000, got 'abc'"),
    ("epochs", "0", f"{WHOLE} from 1 to 1000000, got 0"),
    ("epochs", "-3", f"{WHOLE} from 1 to 1000000, got -3"),
    ("epochs", "inf", f"{WHOLE} from 1 to 1000000, got inf"),
    ("epochs", "99999999999999999999", f"{WHOLE} from 1 to 1000000, got 99999999999999999999"),
    ("patience", "-1", f"patience of the training options must be {COUNT}, got -1; the default is 20"),
    ("batch_size", "0", f"batch_size of the training options must be {WHOLE} from 1 to 16777216 or auto, got 0"),
    ("batch_size", "1e3", f"{WHOLE} from 1 to 16777216 or auto, got 1000.0"),
    ("batch_size", "large", "unknown batch_size of the training options 'large'; choose from: auto"),
    ("lr", "fast", f"lr of the training options must be {POSITIVE}, got 'fast'; the default is 0.001"),
    ("lr", "nan", f"{POSITIVE}, got nan"),
    ("lr", "inf", f"{POSITIVE}, got inf"),
    ("lr", "0", f"{POSITIVE}, got 0"),
    ("lr", "-0.1", f"{POSITIVE}, got -0.1"),
    ("lr", "true", f"{POSITIVE}, got True"),
    ("lr_decay", "1.5", f"lr_decay of the training options must be {NUMBER} above 0 and of at most 1, got 1.5"),
    ("weight_decay", "-1e-3", f"weight_decay of the training options must be {WEIGHT}, got -0.001"),
    ("optimizer", "adma", r"unknown optimizer of the training options 'adma'; did you mean 'adam'\?"),
    ("sampler", "per-item", r"unknown sampler of the training options 'per-item'; did you mean 'per-(user|edge)'"),
    ("history", "past", "unknown history of the training options 'past'"),
    ("negatives", "0", f"negatives of the training options must be {WHOLE} from 1 to 1000, got 0"),
    ("diagnose_every", "often", f"diagnose_every of the training options must be {COUNT}, got 'often'"),
    ("k", "[]", r"k of the evaluation options is empty; give at least one cut-off"),
    ("k", "0", r"k of the evaluation options must be a list of whole numbers from 1 to 10000000, got 0 in it; the"),
    ("k", "[10, -5]", "a list of whole numbers from 1 to 10000000, got -5 in it"),
    ("k", "10,2.5", "a list of whole numbers from 1 to 10000000, got 2.5 in it"),
    ("k", "ten", r"a list of whole numbers from 1 to 10000000, got '\[ten\]'"),
    ("metric", "HR", "metric 'HR' has no cut-off; write it as HR@10 or NDCG@20"),
    ("metric", "HR@0", "metric 'HR@0' has no cut-off"),
    ("metric", "HR@x", "metric 'HR@x' has no cut-off"),
    ("metric", "HT@10", r"unknown metric 'HT'; (did you mean|choose from)"),
    ("mask", "train", "unknown mask of the evaluation options 'train'; (did you mean|choose from)"),
    ("ties", "fair", "unknown ties of the evaluation options 'fair'"),
    ("seed", "-1", f"seed of the configuration must be {WHOLE} from 0 to 9223372036854775807, got -1; the default"),
    ("seed", "1.5", f"{WHOLE} from 0 to .*, got 1.5"),
    ("seed", "99999999999999999999", f"{WHOLE} from 0 to .*, got 99999999999999999999"),
    ("threads", "1000000000", f"threads of the configuration must be {WHOLE} from 0 to 1024, got 1000000000"),
    ("threads", "-2", f"{WHOLE} from 0 to 1024, got -2"),
    ("device", "tpu", "unknown device of the configuration 'tpu'; (did you mean|choose from)"),
    ("validation", "hold", r"unknown validation of the configuration 'hold'; did you mean 'holdout'\?"),
    ("protocol", "lo", r"unknown protocol 'lo'; did you mean 'loo'\?"),
    ("protocol", "ratio:1,2", "ratio"),
    ("model", "rmbrek", r"unknown model 'rmbrek'; did you mean 'rmbrec'\?"),
    ("num_layer", "2", r"unknown configuration key of model 'rmbrec' 'num_layer'; did you mean 'num_layers'\?"),
    ("options.lr", "2", "unknown configuration key of model 'rmbrec' 'options.lr'"),
    ("regularizers", "rex", "unknown configuration key of model 'rmbrec' 'regularizers'"),
    ("rng", "3", "unknown configuration key of model 'rmbrec' 'rng'"),
]  # fmt: skip

REGULARIZER_TEXTS = [
    ("infonce:weight=abc", f"weight of regularizer 'infonce' must be {WEIGHT}, got 'abc'; the def"),
    ("infonce:weight=-1", f"{WEIGHT}, got -1"),
    ("infonce:weight=nan", f"{WEIGHT}, got nan"),
    ("infonce:temperature=0", f"temperature of regularizer 'infonce' must be {POSITIVE}, got 0"),
    ("infonce:supported_only=perhaps", f"supported_only of regularizer 'infonce' must be {SWITCH}, got 'perhaps'"),
    ("infonce:direction=sideways", "unknown direction of regularizer 'infonce' 'sideways'"),
    ("infonce:block=0", f"block of regularizer 'infonce' must be {WHOLE} from 1 to 16777216, got 0"),
    ("infonce:weight=1,weight=2", "'weight' is given twice, as 1 and 2; leave one of them out"),
    ("infonce:weight", "cannot read 'weight'; write it as key=value"),
    ("infonce:label=a b", r"label of regularizer 'infonce' must be .*, got 'a b'"),
    ("infonce:candidates=all,include_positive=no", "infonce among all nodes knows only cross negatives"),
    ("rex:unbiased=2", f"unbiased of regularizer 'rex' must be {SWITCH}, got 2"),
    ("rex:warmup=soon", f"warmup of regularizer 'rex' must be {COUNT}, got 'soon'"),
    ("rex:weigth=1", r"unknown option of regularizer 'rex' 'weigth'; did you mean 'weight'\?"),
    ("l2:on=tabels", r"unknown on of regularizer 'l2' 'tabels'; did you mean 'tables'\?"),
    ("l2:power=3", "power of regularizer 'l2' must be one of 1, 2, got 3; the default is 2"),
    ("rexx", r"unknown regularizer 'rexx'; did you mean 'rex'\?"),
    ("", "a regularizer entry has no name; write"),
    (":weight=1", "a regularizer entry has no name"),
]  # fmt: skip

FILES = [
    ("modle = 'x'", r"unknown option of the configuration 'modle'; did you mean 'model'\?"),
    ("[trainning]\nlr = 1", r"unknown option of the configuration 'trainning'; did you mean 'training'\?"),
    ("[training]\nlrr = 1", r"unknown option of the training options 'lrr'; did you mean 'lr'\?"),
    ("[training]\nlr = '0.1'", f"lr of the training options must be {POSITIVE}, got '0.1'"),
    ("[training]\nepochs = 2.0", f"epochs of the training options must be {WHOLE} from 1 to 1000000, got 2.0"),
    ("training = 3", r"training of the configuration must be a table of options, got 3; write it as \[training\]"),
    ("[[training]]\nlr = 1", r"training of the configuration must be a table of options, got .*; write it"),
    ("options = []", r"options of the configuration must be a table of options, got \[\]; write it as \[options\]"),
    ("evaluation = 'HR@10'", r"evaluation of the configuration must be a table of options, got 'HR@10'; write it as"),
    ("[options]\nlayer_norm = 'off'", f"layer_norm of model 'rmbrec' must be {SWITCH}, got 'off'"),
    ("[options]\nvariant = 'paper'", r"variant is no option of \[options\]; write it above the sections"),
    ("[options]\nbias = 1", "unknown option of model 'rmbrec' 'bias'"),
    ("[evaluation]\nk = 10", r"k of the evaluation options must be a list of whole numbers from 1 to 10000000, got 10"),
    ("[evaluation]\nk = []", "k of the evaluation options is empty"),
    ("[evaluation]\nk = [true]", "a list of whole numbers from 1 to 10000000, got True in it"),
    ("[[regularizers]]\nweight = 1", r"a regularizer entry has no name; write \[\[regularizers\]\] with name"),
    ("[[regularizers]]\nname = 3", "a regularizer entry has no name"),
    ("regularizers = ['rex']", r"regularizers of the configuration must be a list of tables, got 'rex' in it; write"),
    ("[regularizers]\nname = 'rex'", r"regularizers of the configuration must be a list of tables, got .*; write \[\["),
    ("[[regularizers]]\nname = 'rex'\nweight = 'x'", f"weight of regularizer 'rex' must be {WEIGHT}"),
    ("seed = -1", f"seed of the configuration must be {WHOLE} from 0 to .*, got -1"),
    ("seed = '7'", f"seed of the configuration must be {WHOLE} from 0 to .*, got '7'"),
    ("dataset = ''", "dataset of the configuration must be the name or path of a dataset, got ''; the default is demo"),
    ("dataset = 3", "dataset of the configuration must be the name or path of a dataset, got 3"),
    ("validation = 'hold'", r"unknown validation of the configuration 'hold'; did you mean 'holdout'\?"),
    ("device = 3", "device of the configuration must be one of auto, cpu, cuda, got 3; the default is auto"),
    ("model = 'popularity'\nvariant = 'paper'", "model 'popularity' has no variants; leave --variant out"),
    ("model = 'popularity'\n[training]\nlr = 1", "model 'popularity' is not trained and reads no training options"),
    ("model = 'popularity'\n[[regularizers]]\nname = 'rex'", "is not trained and reads no regularizers"),
]  # fmt: skip

PYTHON = [
    ({"options": {"layer_norm": "maybe"}}, f"must be {SWITCH}, got 'maybe'"),
    ({"options": {"embedding_dim": np.float32(8)}}, f"{WHOLE} from 1 to 65536, got 8.0"),
    ({"options": {"num_layers": None}}, f"{WHOLE} from 0 to 64, got None"),
    ({"training": {"epochs": True}}, f"{WHOLE} from 1 to 1000000, got True"),
    ({"training": {"lr": float("nan")}}, f"{POSITIVE}, got nan"),
    ({"training": [("lr", 1)]}, "training of the configuration must be a table of options"),
    ({"training": {3: 4}}, "training of the configuration must be a table of options|unknown option"),
    ({"evaluation": {"k": "10"}}, "a list of whole numbers from 1 to 10000000, got '10'"),
    ({"regularizers": [{}]}, "a regularizer entry has no name"),
    ({"regularizers": "rex"}, "regularizers of the configuration must be a list of tables, got 'rex'"),
    ({"regularizers": [REx(schedule=lambda epoch: 0.5)]}, "the schedule of regularizer 'rex' is a function"),
    ({"model": None}, "model of the configuration must be text, got None; the default is rmbrec"),
    ({"lr": 1}, "unknown option of the configuration 'lr'"),
]


def test_enough_wrong_values_are_tried():
    assert len(SETTINGS) + len(REGULARIZER_TEXTS) + len(FILES) + len(PYTHON) >= 100


def one_line(error):
    assert "\n" not in str(error)
    assert error.remedy
    assert error.exit_code == 2


def refused(arguments, message):
    """Run ``mbgraph fit`` with arguments that must be refused in one line."""
    import re

    result = CliRunner().invoke(cli, ["fit", *arguments, "--quiet"])
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line), line


@pytest.mark.parametrize(("key", "text", "message"), SETTINGS, ids=[f"{key}={text}" for key, text, _ in SETTINGS])
def test_wrong_settings(key, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        configured(FitConfig(), settings=[f"{key}={text}"])
    one_line(caught.value)
    refused(["--set", f"{key}={text}"], message)
    if key in (*TrainingOptions.names(), *EvaluationOptions.names(), *FitConfig.names()) and key != "regularizers":
        refused([f"--{key.replace('_', '-')}", text], message)


@pytest.mark.parametrize(("text", "message"), REGULARIZER_TEXTS, ids=[text for text, _ in REGULARIZER_TEXTS])
def test_wrong_regularizers(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        configured(FitConfig(), regularizers=[parse_regularizer(text)])
    one_line(caught.value)
    refused(["--regularizer", text], message)


@pytest.mark.parametrize(("text", "message"), FILES, ids=[text for text, _ in FILES])
def test_wrong_files(tmp_path, text, message):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_config(path)
    one_line(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    refused(["--config", str(path)], message)


def test_files_that_are_no_toml(tmp_path):
    path = tmp_path / "c.toml"
    for text in ("= 3", "seed = 1\nseed = 2", "[training]\nlr = 1\n[training]\nlr = 2"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"c.toml is no TOML file .*; correct it"):
            read_config(path)
        refused(["--config", str(path)], "is no TOML file")
    with pytest.raises(DataError, match="cannot read .*none.toml: No such file"):
        read_config(tmp_path / "none.toml")


@pytest.mark.parametrize(("values", "message"), PYTHON, ids=[str(values)[:50] for values, _ in PYTHON])
def test_wrong_values_in_python(values, message):
    with pytest.raises(UsageError, match=message) as caught:
        FitConfig(**values)
    one_line(caught.value)


def test_a_key_given_twice():
    refused(["--set", "lr=1", "--set", "lr=2"], "'lr' is given twice, as 1 and 2; leave one of them out")
    refused(["--lr", "1", "--set", "lr=2"], "'lr' is given twice, as --lr and in --set; leave one of them out")
    refused(["--batch-size", "1", "--set", "training.batch_size=2"], "is given twice, as --batch-size and in --set")
    refused(["--set", "lr"], "cannot read 'lr'; write it as key=value")


@pytest.mark.parametrize("text", ["False", "false", "no", "off", "OFF"])
def test_off_is_off(text):
    config = configured(
        FitConfig(),
        settings=[f"layer_norm={text}"],
        regularizers=[parse_regularizer(f"infonce:supported_only={text},include_positive={text}")],
    )
    assert config.options == {"layer_norm": False}
    assert config.model_options.layer_norm is False
    contrast = config.chosen_regularizers[0]
    assert (contrast.supported_only, contrast.include_positive) == (False, False)
    written = config.resolve().plain()
    assert written["options"]["layer_norm"] is False
    assert written["regularizers"][0]["include_positive"] is False


@pytest.mark.parametrize("text", ["True", "yes", "on"])
def test_on_is_on(text):
    config = configured(FitConfig(), settings=[f"padding={text}"])
    assert config.model_options.padding is True


def test_set_finds_the_section():
    config = configured(
        FitConfig(), {"lr": "0.1"}, ["num_layers=2", "mask=none", "seed=7", "training.epochs=3", "options.gamma=0.5"]
    )
    assert (config.options, config.seed) == ({"num_layers": 2, "gamma": 0.5}, 7)
    assert (config.training, config.evaluation) == ({"lr": 0.1, "epochs": 3}, {"mask": "none"})


def test_only_what_was_given_is_kept_until_it_is_resolved():
    config = FitConfig(options={"num_layers": 2})
    assert config.given() == {"options": {"num_layers": 2}}
    resolved = config.resolve()
    assert (resolved.variant, resolved.options["num_layers"], resolved.options["embedding_dim"]) == ("mbgraph", 2, 64)
    assert resolved.training == TrainingOptions(weight_decay=1e-3).plain()
    assert [entry["name"] for entry in resolved.regularizers] == ["infonce", "rex", "l2"]
    assert "variant" not in resolved.options


def test_the_model_s_own_defaults_hold():
    assert FitConfig(model="lightgcn").training_options.sampler == "with-replacement"
    assert FitConfig(model="lightgcn", training={"sampler": "per-edge"}).training_options.batch_size == 2048
    paper = FitConfig(variant="paper")
    assert (paper.training_options.history, paper.training_options.weight_decay) == ("behavior", 0.0)
    assert FitConfig(variant="official").model_options.padding is True
    assert FitConfig(variant="official", options={"padding": False}).model_options.padding is False


def test_a_change_of_a_regularizer_keeps_the_variant_s_other_options():
    config = FitConfig(variant="paper", regularizers=[{"name": "infonce", "weight": 0.5}])
    contrast = config.chosen_regularizers[0]
    assert (contrast.weight, contrast.direction, contrast.include_positive) == (0.5, "other", False)
    assert config.resolve().regularizers[0]["negatives"] == "intra"


def test_sections_and_regularizers_can_be_given_as_objects():
    config = FitConfig(
        training=TrainingOptions(lr=0.5), evaluation=EvaluationOptions(k=(5,)), regularizers=[InfoNCE(weight=0.25)]
    )
    assert (config.training, config.evaluation) == ({"lr": 0.5}, {"k": (5,)})
    assert config.regularizers == ({"name": "infonce", "weight": 0.25},)
    assert config == FitConfig(
        training={"lr": 0.5}, evaluation={"k": [5]}, regularizers=[{"name": "infonce", "weight": 0.25}]
    )


def test_untrained_models_have_no_training():
    resolved = FitConfig(model="conversion").resolve()
    assert (resolved.training, resolved.regularizers, resolved.options) == ({}, (), {"smoothing": 10.0})


def test_cut_offs_are_cut_to_the_catalogue():
    resolved = FitConfig(evaluation={"k": [5, 50, 20], "metric": "NDCG@10"}).resolve(num_items=8)
    assert (resolved.evaluation["k"], resolved.evaluation["metric"]) == ((5, 8), "NDCG@8")
    assert FitConfig().resolve(num_items=4).evaluation["k"] == (4,)
    assert FitConfig().resolve().evaluation["k"] == (10, 20)


def test_flags_of_another_model():
    config = configured(FitConfig(), {"model": "conversion"}, ["smoothing=3"])
    assert config.model_options.smoothing == 3.0
    with pytest.raises(UnknownNameError, match="unknown configuration key of model 'conversion' 'num_layers'"):
        configured(FitConfig(), settings=["model=conversion", "num_layers=2"])
    refused(["--model", "conversion", "--lr", "1"], "model 'conversion' is not trained and reads no training options")


configs = st.builds(
    lambda model, variant, **values: FitConfig(model=model, variant=variant if model == "rmbrec" else None, **values),
    model=st.sampled_from(["rmbrec", "lightgcn", "simgcl"]),
    variant=st.none() | st.sampled_from(["mbgraph", "official", "paper"]),
    seed=st.integers(0, 2**63 - 1),
    validation=st.sampled_from(["auto", "none", "merge"]),
    options=st.fixed_dictionaries({}, optional={"embedding_dim": st.integers(1, 99), "gamma": st.floats(0, 1)}),
    training=st.fixed_dictionaries({}, optional={"epochs": st.integers(1, 9), "lr": st.floats(1e-6, 1)}),
    evaluation=st.fixed_dictionaries({}, optional={"k": st.lists(st.integers(1, 99), min_size=1, max_size=3)}),
    regularizers=st.lists(
        st.fixed_dictionaries({"name": st.sampled_from(["l2", "rex"])}, optional={"weight": st.floats(0, 9)}),
        max_size=2,
    ),
)


@given(configs)
def test_a_resolved_configuration_says_everything(config):
    resolved = config.resolve(num_items=40)
    assert resolved.resolve(40) == resolved
    assert (resolved.model_options, resolved.training_options) == (config.model_options, config.training_options)
    assert resolved.chosen_regularizers == config.chosen_regularizers


@given(configs, st.booleans())
def test_files_give_back_what_was_written(tmp_path_factory, config, resolve):
    config = config.resolve(40) if resolve else config
    path = tmp_path_factory.mktemp("config") / "c.toml"
    path.write_bytes(tomli_w.dumps(config.plain()).encode())
    assert read_config(path).plain() == config.plain()


class ToyOptions(ModelOptions):
    bias: bool = True
    """Add a number per item."""
    steepness: Annotated[float, Field(gt=0)] = 2.0


class Toy(EmbeddingRecommender):
    """A model whose parameter has the name of an option."""

    name = "toy"
    Options: ClassVar[type[ModelOptions]] = ToyOptions

    def __init__(self, graph, target, **options):
        super().__init__(graph, target, **options)
        self.make_tables(4)
        self.bias = torch.nn.Parameter(torch.zeros(self.num_items))


def test_an_option_is_no_parameter(tiny, monkeypatch):
    """The option ``bias`` is written, not the parameter that the model calls so."""
    monkeypatch.setattr(MODELS, "_entries", {**MODELS._entries, "toy": Toy})
    resolved = FitConfig(model="toy", options={"steepness": 3}).resolve()
    assert resolved.options == {"bias": True, "steepness": 3.0}
    assert tomli_w.dumps(resolved.plain())
    model = Toy(tiny.graph, tiny.target, **resolved.options)
    assert model.options.bias is True
    assert isinstance(model.bias, torch.nn.Parameter)


def test_every_option_has_a_name_of_its_own():
    """``--set KEY`` needs no section for the options of the shipped models."""
    others = {*FitConfig.names(), *TrainingOptions.names(), *EvaluationOptions.names()}
    for name in MODELS:
        assert not (set(MODELS.get(name).Options.names()) - {"variant"}) & others, name


def test_an_ambiguous_key_asks_for_its_section(monkeypatch):
    class Clash(Toy):
        name = "clash"

        class Options(ModelOptions):
            k: int = 3
            """Neighbours."""

    monkeypatch.setattr(MODELS, "_entries", {**MODELS._entries, "clash": Clash})
    with pytest.raises(UsageError, match="'k' is known to several sections; write options.k or evaluation.k"):
        configured(FitConfig(model="clash"), settings=["k=5"])
    config = configured(FitConfig(model="clash"), settings=["options.k=5", "evaluation.k=7,8"])
    assert (config.options, config.evaluation) == ({"k": 5}, {"k": (7, 8)})


def test_every_field_has_a_docstring():
    sections = [FitConfig, TrainingOptions, EvaluationOptions, *(REGULARIZERS.get(name) for name in REGULARIZERS)]
    for section in [*sections, *(MODELS.get(name).Options for name in MODELS)]:
        assert not [fact.name for fact in section.facts() if not fact.doc], section.called
