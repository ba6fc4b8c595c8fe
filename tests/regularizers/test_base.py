"""What every regularizer has: defaults, a name in logs, a weight by epoch, plain values."""

import pytest

from mbgraph.errors import UsageError
from mbgraph.regularizers import REGULARIZERS, InfoNCE, REx, make_regularizer
from mbgraph.regularizers.base import changed, parse_regularizer

DEFAULTS = {
    "infonce": {
        "temperature": 0.07,
        "temperatures": [],
        "direction": "both",
        "negatives": "cross",
        "include_positive": True,
        "reduction": "mean",
        "reduce_behaviors": "sum",
        "supported_only": False,
        "weighted": False,
        "between": "behaviors",
        "side": "user",
        "candidates": "batch",
        "zero_similar": False,
        "block": 1024,
        "adaptive": False,
    },
    "irmv1": {"scale_on": "scores", "adaptive": False},
    "irmv2": {"of": "scores", "adaptive": False},
    "l2": {"on": "propagated", "power": 2, "negatives": True, "divide_by": "nothing"},
    "rex": {"unbiased": True, "adaptive": False},
}
"""A run that names a regularizer and nothing else means these: another default is another experiment."""


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_defaults_stay(name):
    assert make_regularizer({"name": name}).plain() == {"weight": 1.0, "warmup": 0, "label": "", **DEFAULTS[name]}


def test_every_regularizer_of_the_package_is_in_that_table():
    assert {name for name in REGULARIZERS if REGULARIZERS.get(name).__module__.startswith("mbgraph.")} == set(DEFAULTS)


def test_the_weight_rises_and_a_schedule_multiplies_it():
    term = InfoNCE(weight=0.8, warmup=4, schedule=lambda epoch: 10.0 * epoch)
    assert [term.factor(epoch) for epoch in (1, 2, 4, 5)] == pytest.approx([2.0, 8.0, 32.0, 40.0])
    assert REx(weight=0.5).factor(1) == 0.5


def test_a_schedule_is_no_plain_value():
    """It is a function: it can stand in no file, and a regularizer made from a file has none."""
    term = REx(schedule=lambda epoch: 0.5)
    assert "schedule" not in term.plain()
    assert make_regularizer({"name": "rex", **term.plain()}).schedule is None


def test_a_term_is_called_by_its_label():
    assert (REx().term, REx(label="risk-2").term) == ("rex", "risk-2")
    for label in ("a b", "x" * 61):
        with pytest.raises(UsageError, match="label of regularizer 'rex' must be"):
            REx(label=label)


def test_a_label_makes_another_term():
    users, items = changed([InfoNCE()], [parse_regularizer("infonce:label=items,side=item,weight=.5")])
    assert (users, items) == (InfoNCE(), InfoNCE(label="items", side="item", weight=0.5))
