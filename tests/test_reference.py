"""Options as facts and tables, read off their fields."""

import pytest

from mbgraph.config import FitConfig
from mbgraph.errors import UnknownNameError
from mbgraph.models import MODELS
from mbgraph.reference import describe_models, describe_regularizers, option_table, section_called
from mbgraph.regularizers import REGULARIZERS, REx


def test_sections_by_name():
    assert section_called("regularizer rex") is REx
    assert section_called("model rmbrec") is MODELS.get("rmbrec").Options
    assert section_called("configuration") is FitConfig
    for wrong, message in (
        ("rex", "unknown section 'rex'"),
        ("model rmbrek", "did you mean 'rmbrec'"),
        ("model", "sec"),
    ):
        with pytest.raises(UnknownNameError, match=message):
            section_called(wrong)


def test_a_table_has_a_row_per_field():
    lines = option_table("training").splitlines()
    assert len(lines) == 2 + len(section_called("training").names())
    assert "| `weight_decay` | a number from 0 to 1000000 | `0.0` | L2 on all parameters by the optimizer. |" in lines
    assert not any("``" in line for line in lines)


def test_what_all_regularizers_share_is_told_once():
    assert "`weight`" not in option_table("regularizer infonce")
    shared = option_table("regularizer")
    assert "| `weight` | a number from 0 to 1000000 | `1.0` |" in shared
    assert shared.count("\n") == 5


def test_everything_registered_is_described():
    models = describe_models()
    assert set(models) == set(MODELS)
    assert models["rmbrec"]["variants"] == ["mbgraph", "official", "paper"]
    assert models["rmbrec"]["training"]["weight_decay"] == 1e-3
    assert [entry["name"] for entry in models["rmbrec"]["regularizers"]] == ["infonce", "rex", "l2"]
    assert (models["popularity"]["trained"], models["popularity"]["training"]) == (False, {})
    assert (models["pkef"]["propagations"], models["popularity"]["propagations"]) == ({3: 12, 4: 14}, {})
    assert set(describe_regularizers()) == set(REGULARIZERS)
    assert all(facts["summary"] for facts in [*models.values(), *describe_regularizers().values()])
