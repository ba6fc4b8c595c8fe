"""Sections: what a value must be is said once, at the field, and every wrong one is one line that says it."""

import importlib
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from mbgraph import schema
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.models import MODELS
from mbgraph.regularizers import REGULARIZERS
from mbgraph.schema import InWords, Section, parse_assignment, parse_assignments, parse_value, read_toml, shown, tomllib


class Box(Section):
    called = "box"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"wide": {"width": 9}, "tall": {"height": 2.5}}

    variant: Literal["plain", "wide", "tall"] = "plain"
    """Ready-made sizes."""
    width: Annotated[int, Field(ge=1, le=64)] = 3
    """Millimetres
    of wood."""
    height: Annotated[float, Field(gt=0)] = 1.5
    lid: bool = False
    """Whether it has one. Most do."""
    label: str = ""
    colour: str | None = None
    holes: tuple[Annotated[int, Field(ge=1)], ...] = (2, 4)
    counts: Mapping[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    code: Annotated[str, Field(pattern=r"^[a-f0-9]{4}$"), InWords("four hexadecimal digits")] = "00ff"
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    mark: Annotated[str, Field(pattern=r"^[a-z]*$", max_length=5)] = ""
    hidden: int = Field(default=0, exclude=True)


class Words(Section):
    called = "words"

    labels: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one", ["one"]),
        ("runs/a-1, runs/b", ["runs/a-1", "runs/b"]),
        ('["a, b", "c"]', ["a, b", "c"]),
        ('"a", "b"', ["a", "b"]),
        ("[]", []),
    ],
)
def test_a_list_of_texts_needs_no_quotes(text, expected):
    assert list(Words.from_text({"labels": text}).labels) == expected


def test_words_are_no_numbers():
    with pytest.raises(UsageError, match=r"counts of words must be a list of whole numbers, got '\[one, 2\]'"):
        Words.from_text({"counts": "one, 2"})


class Parcel(Section):
    called = "parcel"

    to: str
    """Whom it is for. By name."""
    weight: float

    @model_validator(mode="after")
    def _check(self):
        if self.weight > 30:
            raise UsageError("too heavy", "send two")
        return self


WRONG = [
    ({"width": 0}, r"width of box must be a whole number from 1 to 64, got 0; the default is 3"),
    ({"width": 65}, r"from 1 to 64, got 65"),
    ({"width": 2.5}, r"a whole number from 1 to 64, got 2\.5"),
    ({"width": 3.0}, r"got 3\.0"),
    ({"width": "3"}, r"got '3'"),
    ({"width": True}, r"got True"),
    ({"width": None}, r"got None"),
    ({"width": 10**30}, r"got 10{30}"),
    ({"height": 0}, r"height of box must be a number above 0, got 0; the default is 1\.5"),
    ({"height": math.nan}, r"a number above 0, got nan"),
    ({"height": math.inf}, r"a number above 0, got inf"),
    ({"height": False}, r"a number above 0, got False"),
    ({"lid": 1}, r"lid of box must be true or false, got 1; the default is false"),
    ({"lid": "maybe"}, r"true or false, got 'maybe'"),
    ({"label": 3}, r"label of box must be text, got 3; correct it or leave it out"),
    ({"colour": 3}, r"colour of box must be text or none, got 3"),
    ({"variant": "wid"}, r"unknown variant of box 'wid'; did you mean 'wide'\?"),
    ({"variant": 3}, r"variant of box must be one of plain, wide, tall, got 3; the default is plain"),
    ({"variant": ["wide"]}, r"variant of box must be one of plain, wide, tall, got \['wide'\]"),
    ({"holes": 3}, r"holes of box must be a list of whole numbers of at least 1, got 3; the default is \[2, 4\]"),
    ({"holes": [3, 0]}, r"a list of whole numbers of at least 1, got 0 in it"),
    ({"holes": ["a"]}, r"got 'a' in it"),
    ({"counts": []}, r"counts of box must be a table of whole numbers of at least 0, got \[\]; correct it or leave"),
    ({"counts": {"a": -1}}, r"counts\.a of box must be a whole number of at least 0, got -1"),
    ({"counts": {3: 1}}, r"counts of box must be a table"),
    ({"code": "xyz"}, r"code of box must be four hexadecimal digits, got 'xyz'; the default is 00ff"),
    ({"mark": "A B"}, r"mark of box must be text of at most 5 characters that matches \^\[a-z\]\*\$, got 'A B'"),
    ({"share": 2}, r"share of box must be a number from 0 to 1 or none, got 2"),
    ({"witdh": 2}, r"unknown option of box 'witdh'; did you mean 'width'\?"),
    ({"label": "x" * 500, "width": "y" * 500}, r"got 'y{57}\.\.; the default"),
]


@pytest.mark.parametrize(("values", "message"), WRONG, ids=[str(values)[:40] for values, _ in WRONG])
def test_a_wrong_value_is_one_line_with_field_type_and_remedy(values, message):
    with pytest.raises(UsageError, match=message) as caught:
        Box(**values)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_missing_values_and_rules_across_fields():
    with pytest.raises(UsageError, match="parcel needs 'to', text; add to, Whom it is for"):
        Parcel(weight=3)
    with pytest.raises(UsageError, match="parcel needs 'weight', a number; add weight, a number"):
        Parcel(to="Ada")
    with pytest.raises(UsageError, match="too heavy; send two"):
        Parcel(to="Ada", weight=31)
    with pytest.raises(UsageError, match=r"to of parcel must be text, got 3; correct it$"):
        Parcel(to=3, weight=1)


def test_a_section_does_not_change():
    box = Box(width=4)
    with pytest.raises(Exception, match="frozen"):
        box.width = 5
    assert box.replace(width=5) == Box(width=5)
    with pytest.raises(UsageError, match="width of box"):
        box.replace(width=0)
    assert repr(box) == "Box(width=4)"
    assert box.given() == {"width": 4}


def test_presets_stand_below_what_is_given():
    assert Box(variant="wide").width == 9
    assert Box(variant="wide", width=2).width == 2
    assert (Box(variant="tall").height, Box(variant="tall").width) == (2.5, 3)
    assert Box(variant="wide").replace(variant="plain").width == 9


def test_numpy_and_lists_count_as_python_s():
    box = Box(width=np.int64(4), height=np.float32(0.5), lid=np.bool_(True), holes=np.array([1, 2]))
    assert (box.width, box.height, box.lid, box.holes) == (4, 0.5, True, (1, 2))
    assert Box(height=2).height == 2.0
    assert Box(holes=range(1, 4)).holes == (1, 2, 3)


TEXTS = [
    ("width", "5", 5), ("width", " 7 ", 7), ("height", ".5", 0.5), ("height", "1e-3", 1e-3), ("height", "2", 2.0),
    *(("lid", word, True) for word in ("true", "True", "on", "yes", "YES")),
    *(("lid", word, False) for word in ("false", "False", "off", "no", "No")),
    ("label", "3", "3"), ("label", "true", "true"), ("label", "2024-05-01", "2024-05-01"), ("label", "a=b", "a=b"),
    ("label", '"quoted"', "quoted"), ("colour", "none", None), ("colour", "red", "red"),
    ("holes", "[1, 2]", (1, 2)), ("holes", "1,2", (1, 2)), ("holes", "7", (7,)), ("variant", "wide", "wide"),
    ("share", "none", None), ("share", "0.5", 0.5),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "value"), TEXTS)
def test_text_is_read_by_the_field_s_type(name, text, value):
    assert getattr(Box.from_text({name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("width", "abc", "a whole number from 1 to 64, got 'abc'"),
        ("width", "2.5", "a whole number from 1 to 64, got 2.5"),
        ("width", "", "a whole number from 1 to 64, got ''"),
        ("height", "nan", "a number above 0, got nan"),
        ("lid", "maybe", "true or false, got 'maybe'"),
        ("lid", "3", "true or false, got 3"),
        ("holes", "1,x", r"a list of whole numbers of at least 1, got '\[1,x\]'"),
        ("holes", "[]x", "a list of whole numbers"),
        ("variant", "tal", "did you mean 'tall'"),
        ("nothing", "1", "unknown option of box 'nothing'"),
    ],
)
def test_wrong_text(name, text, message):
    with pytest.raises(UsageError, match=message):
        Box.from_text({name: text})


def test_facts_are_those_of_the_fields():
    facts = {entry.name: entry for entry in Box.facts()}
    assert tuple(facts) == Box.names()
    assert "hidden" not in facts
    assert (facts["width"].type, facts["width"].default) == ("a whole number from 1 to 64", 3)
    assert facts["width"].doc == "Millimetres of wood."
    assert facts["width"].to_dict() == {
        "name": "width", "type": "a whole number from 1 to 64", "default": 3, "doc": "Millimetres of wood.",
    }  # fmt: skip
    assert facts["holes"].to_dict()["default"] == [2, 4]
    assert facts["counts"].default == {}
    assert [facts[name].placeholder for name in ("variant", "width", "height", "lid", "label", "holes", "share")] == [
        "plain|wide|tall", "N", "NUMBER", "true|false", "TEXT", "N,N..", "NUMBER",
    ]  # fmt: skip
    assert [name for name, entry in facts.items() if entry.is_list] == ["holes"]
    assert {entry.name: entry.default for entry in Parcel.facts()} == {"to": None, "weight": None}


boxes = st.builds(
    Box,
    variant=st.sampled_from(["plain", "wide", "tall"]),
    width=st.integers(1, 64),
    height=st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False),
    lid=st.booleans(),
    label=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20),
    colour=st.none() | st.sampled_from(["red", "blue"]),
    holes=st.lists(st.integers(1, 1000), max_size=4),
    counts=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 9), max_size=3),
    share=st.none() | st.floats(0, 1),
)


@given(boxes)
def test_plain_values_survive_toml(box):
    assert Box(**read_back(box.plain())) == box


def read_back(values):
    return tomllib.loads(tomli_w.dumps(values))


@given(boxes)
def test_values_shown_are_read_again(box):
    """What a message or a table shows can be typed: numbers, switches, choices and lists come back as they were."""
    values = {name: value for name, value in box.values().items() if name not in ("label", "counts")}
    assert Box.from_text({name: shown(value) for name, value in values.items()}).values() == {
        **box.values(), "label": "", "counts": {},
    }  # fmt: skip


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def attempt(make):
    """Return what was made, or the error after a look at its form."""
    try:
        return make(), None
    except UsageError as caught:
        error = caught
    assert error.remedy
    assert "\n" not in str(error)
    assert len(str(error)) < 400
    return None, error


@given(st.dictionaries(st.sampled_from([*Box.names(), "bogus"]), anything, max_size=3))
def test_anything_is_taken_or_refused_in_one_line(values):
    box, error = attempt(lambda: Box(**values))
    if error is None:
        assert Box(**box.values()) == box


@given(st.sampled_from(Box.names()), st.text(max_size=12))
def test_any_text_is_taken_or_refused_in_one_line(name, text):
    attempt(lambda: Box.from_text({name: text}))


def test_assignments():
    assert parse_assignment(" lr = 1e-3 ") == ("lr", "1e-3")
    assert parse_assignment("label=a=b") == ("label", "a=b")
    assert parse_assignments(["a=1", "b=2"]) == {"a": "1", "b": "2"}
    for text in ("lr", "=3", " = 3"):
        with pytest.raises(UsageError, match="cannot read .*; write it as key=value"):
            parse_assignment(text)
    with pytest.raises(UsageError, match="'a' is given twice, as 1 and 2; leave one of them out"):
        parse_assignments(["a=1", "a=2"])


def test_values_are_read_as_toml_would():
    for text, value in (("2", 2), ("1e-3", 1e-3), ("true", True), ("[1, 2]", [1, 2]), ("abc", "abc"), ("1\nb=2", None)):
        assert parse_value(text) == (text if value is None else value)
    assert parse_value("[" * 5000) == "[" * 5000


def test_toml_files_that_cannot_be_read(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("a = 1")
    assert read_toml(file) == {"a": 1}
    for text, message in (
        ("= 3", "c.toml is no TOML file .*; correct it"),
        ("a = 1\na = 2", "c.toml is no TOML file .*; correct it"),
        ("a = " + "[" * 5000, "c.toml is (no TOML file|nested too deeply).*; correct it"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            read_toml(file)
    file.write_bytes(b"\xff")
    with pytest.raises(DataError, match="c.toml is no TOML file"):
        read_toml(file)
    with pytest.raises(
        DataError, match="cannot read .*none.toml: No such file or directory; restore the file or correct"
    ):
        read_toml(tmp_path / "none.toml")


def test_the_unknown_are_named_by_the_nearest():
    with pytest.raises(UnknownNameError) as caught:
        Box(heigth=2)
    assert caught.value.remedy == "did you mean 'height'?"


FREE = {"Range.low", "Range.high", "Published.figures", "Card.paper", "Regularizer.schedule"}
"""Bounded by something else: the option that is searched, the page that shows them, a check of their own."""


def _numbers(annotation, bounds=()):
    while hasattr(annotation, "__metadata__"):
        for part in annotation.__metadata__:
            bounds = (*bounds, *(getattr(part, "metadata", None) or [part]))
        annotation = get_args(annotation)[0]
    if annotation in (int, float):
        yield bounds
    for part in get_args(annotation):
        if not isinstance(part, str):
            yield from _numbers(part, bounds)


def test_every_number_of_every_section_has_bounds():
    importlib.import_module("mbgraph.bench.space")
    importlib.import_module("mbgraph.limits")
    for registry in (MODELS, REGULARIZERS):
        assert [registry.get(name) for name in registry]
    waiting, wrong = [Section], []
    while waiting:
        section = waiting.pop()
        waiting += section.__subclasses__()
        if not section.__module__.startswith("mbgraph."):
            continue
        for name, field in section.model_fields.items():
            if f"{section.__name__}.{name}" in FREE or any(
                f"{base.__name__}.{name}" in FREE for base in section.__mro__
            ):
                continue
            for bounds in _numbers(schema._typed(field)):
                least = any(getattr(bound, key, None) is not None for bound in bounds for key in ("ge", "gt"))
                most = any(getattr(bound, key, None) is not None for bound in bounds for key in ("le", "lt"))
                wrong += [] if least and most else [f"{section.__name__}.{name}"]
    assert not wrong, wrong


def test_a_number_of_thousands_of_digits(tmp_path):
    """Python itself refuses to read it, with a plain ValueError."""
    (tmp_path / "x.toml").write_text(f"seed = {'9' * 5000}\n")
    with pytest.raises(DataError, match=r"x\.toml is no TOML file \(Exceeds the limit"):
        read_toml(tmp_path / "x.toml")
    assert parse_value("9" * 5000) == "9" * 5000
