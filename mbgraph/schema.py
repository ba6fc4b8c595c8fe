"""Typed, frozen sections of a configuration: one class per section, its fields the only place where an option is named.

Flags, TOML keys, error messages and the tables of the documentation are all read off the fields. A value of the wrong
type or out of range raises one line that names the field, what it must be and what it is by default.
"""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.files import read_whole

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

__all__ = [
    "FieldFacts",
    "InWords",
    "Section",
    "parse_assignment",
    "parse_assignments",
    "parse_value",
    "read_toml",
    "shown",
]

S = TypeVar("S", bound="Section")
_LARGEST_TOML = 1 << 20  # bytes; the parser is slow, and configurations are small
_LONGEST = 60  # characters of a wrong value that a message shows


@dataclass(frozen=True)
class InWords:
    """Says in messages what a value must be, where a pattern would say nothing: ``Annotated[str, .., InWords("..")]``.

    Attributes
    ----------
    text : str
        What it must be.
    remedy : str
        What to do about a wrong one; by default the message names the field's default.
    """

    text: str
    remedy: str = ""


@dataclass(frozen=True)
class FieldFacts:
    """What is known about one field.

    Attributes
    ----------
    name : str
    type : str
        What its value must be, in words: ``a whole number of at least 1``.
    default : Any
        None also stands for no default.
    doc : str
        The field's docstring.
    placeholder : str
        What stands for the value in a command's help: ``N``, ``NUMBER``, ``auto|cpu|cuda``.
    is_list : bool
        Whether the value is a list, which a command line may give in several pieces.
    """

    name: str
    type: str
    default: Any
    doc: str
    placeholder: str
    is_list: bool

    def to_dict(self) -> dict[str, Any]:
        """Return name, type, default and doc as plain values."""
        default = list(self.default) if isinstance(self.default, tuple) else self.default
        return {"name": self.name, "type": self.type, "default": default, "doc": self.doc}


class Section(BaseModel):
    """Base of every section.

    A subclass writes one annotated field per option with a docstring below it, and sets `called`, the name that
    messages have for it. Where fields contradict each other, a validator of its own raises `UsageError`. Values are
    checked strictly: no text for a number, no number for a truth value, no NaN. Numpy's values count as Python's, lists
    as tuples.

    Raises
    ------
    UnknownNameError
        For a field that does not exist or a name outside a closed list; names the nearest one.
    UsageError
        For a value of the wrong type or out of range, and where fields contradict each other.

    Examples
    --------
    >>> from mbgraph.models import TrainingOptions
    >>> TrainingOptions(epochs=4).epochs, TrainingOptions.from_text({"epochs": "5"}).epochs
    (4, 5)
    >>> TrainingOptions(epochs=0)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    UsageError: epochs of the training options must be a whole number from 1 to 1000000, got 0; the default is 200
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
    )

    called: ClassVar[str] = "configuration"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Values of other fields by the value of ``variant``, in sections that have such a field."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _explained(type(self), error) from None

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        given = {name: _plain(value) for name, value in values.items()}
        if cls.presets:
            variant = given.get("variant", cls.model_fields["variant"].default)
            given = {**cls.presets.get(variant if isinstance(variant, str) else "", {}), **given}
        return given

    @classmethod
    def from_text(cls: type[S], values: Mapping[str, Any]) -> S:
        """Make a section of values written as text, as a command line has them; other values are taken as they are."""
        return cls(**{name: cls.value_of(name, value) for name, value in values.items()})

    @classmethod
    def value_of(cls, name: str, value: Any) -> Any:
        """Return what ``value`` means for a field: text is read by the field's own type (``off`` is false)."""
        field = cls.model_fields.get(name)
        if field is None or not isinstance(value, str):
            return value
        words: list[str] | None = None
        if _accepts(field, tuple) and not value.strip().startswith("["):
            words = [word.strip() for word in value.split(",")]
            value = f"[{value}]"
        read = parse_value(value)
        if words is not None and isinstance(read, str) and _fits(field, words):
            return words  # texts without quotes
        if not isinstance(read, str):
            return read if not _accepts(field, str) or _fits(field, read) else value
        if read.lower() == "none" and _accepts(field, type(None)):
            return None
        try:
            return TypeAdapter(_typed(field)).validate_python(read, strict=False)
        except ValidationError:
            return read  # wrong either way: the section's own check says how

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all fields that a configuration file may hold."""
        return tuple(name for name, field in cls.model_fields.items() if not field.exclude)

    @classmethod
    def facts(cls) -> Iterator[FieldFacts]:
        """Yield what is known about every field."""
        for name in cls.names():
            field = cls.model_fields[name]
            made = field.get_default(call_default_factory=True)
            default = None if made is PydanticUndefined else made
            doc = " ".join((field.description or "").split())
            is_list = _accepts(field, tuple)
            yield FieldFacts(name, _in_words(field), default, doc, _placeholder(_typed(field)), is_list)

    def values(self) -> dict[str, Any]:
        """Return the value of every field by name."""
        return {name: getattr(self, name) for name in self.names()}

    def given(self) -> dict[str, Any]:
        """Return the values of the fields that were set, by the caller or by a preset."""
        return {name: value for name, value in self.values().items() if name in self.model_fields_set}

    def plain(self) -> dict[str, Any]:
        """Return values that TOML and JSON can hold: tuples as lists, None left out."""
        return {name: _as_lists(value) for name, value in self.values().items() if value is not None}

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """Show what differs from the default."""
        fields = type(self).model_fields
        return (
            (name, value)
            for name, value in self.values().items()
            if value != fields[name].get_default(call_default_factory=True)
        )

    def replace(self: S, **changes: Any) -> S:
        """Return a copy with some fields changed, checked like a new one."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    DataError
        If it cannot be read or is no TOML; one line that names the file.
    """
    content = read_whole(path, _LARGEST_TOML)
    try:
        return tomllib.loads(content.decode("utf-8"))
    except ValueError as error:  # no TOML, no UTF-8, or a number of thousands of digits
        raise DataError(f"{path} is no TOML file ({error})", "correct it") from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply", "correct it") from error


def parse_value(text: str) -> Any:
    """Read a value as TOML would (``3``, ``0.5``, ``true``, ``[1, 2]``), anything else as a string."""
    try:
        values = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return values["value"] if len(values) == 1 else text


def parse_assignment(text: str) -> tuple[str, str]:
    """Split ``key=value``; both stay text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"cannot read {text!r}", "write it as key=value")
    return key.strip(), value.strip()


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """Split several ``key=value``; a key that comes twice raises `UsageError`."""
    found: dict[str, str] = {}
    for key, value in map(parse_assignment, texts):
        if key in found:
            raise UsageError(f"{key!r} is given twice, as {found[key]} and {value}", "leave one of them out")
        found[key] = value
    return found


def _plain(value: Any) -> Any:
    """Return numpy's values as Python's, and lists as tuples, inside tables too."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple | range):
        return tuple(_plain(entry) for entry in value)
    return {key: _plain(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def _as_lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_lists(entry) for key, entry in value.items() if entry is not None}
    return [_as_lists(entry) for entry in value] if isinstance(value, tuple) else value


def _explained(section: type[Section], error: ValidationError) -> UsageError:
    """Return the first problem as one line; an unknown name first, since what it was meant for may seem missing."""
    problem = min(error.errors(), key=lambda entry: entry["type"] != "extra_forbidden")
    path = [str(part) for part in problem["loc"]]
    if not path:
        return UsageError(f"{section.called}: {problem['msg']}", "correct it")
    name = path[0]
    if problem["type"] == "extra_forbidden":
        return UnknownNameError(f"option of {section.called}", name, section.names())
    field = section.model_fields[name]
    if problem["type"] == "missing" and len(path) == 1:
        words = _in_words(field)
        return UsageError(f"{section.called} needs {name!r}, {words}", f"add {name}, {_first_sentence(field) or words}")
    value, wanted = problem["input"], _typed(field)
    for member in _members(wanted):  # an entry of a table is named on its own
        if get_origin(member) in (dict, Mapping) and len(path) > 1 and "[key]" not in path:
            name, wanted = f"{name}.{path[1]}", get_args(member)[1]
    choices = _choices(wanted)
    if choices and isinstance(value, str):
        return UnknownNameError(f"{name} of {section.called}", value, choices)
    return UsageError(
        f"{name} of {section.called} must be {_type_in_words(wanted)}, got {_whole(error, path, value)}",
        _remedy(field),
    )


def _whole(error: ValidationError, path: Sequence[str], value: Any) -> str:
    """Show a wrong value; of a list the wrong entry alone would not say which list it is."""
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 2] + ".."
    return f"{text} in it" if len(path) > 1 and path[-1].isdigit() else text


def _remedy(field: FieldInfo) -> str:
    for words in field.metadata:
        if isinstance(words, InWords) and words.remedy:
            return words.remedy
    default = field.get_default(call_default_factory=True)
    if default in (PydanticUndefined, None, "", (), {}):
        return "correct it" if field.is_required() else "correct it or leave it out"
    return f"the default is {shown(default)}"


def _first_sentence(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).partition(". ")[0].rstrip(".")


def shown(value: Any) -> str:
    """Return a value as a command line or a TOML file has it: ``true``, ``[10, 20]``, ``0.001``."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {shown(entry)}" for key, entry in value.items()) + "}"
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, tuple | list) else str(value)


def _typed(field: FieldInfo) -> Any:
    """Return the field's annotation with its bounds."""
    made: Any = field.annotation
    for bound in field.metadata:
        made = Annotated[made, bound]
    return made


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, each without its bounds; a single type is one alternative."""
    while hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in _members(part))
    return (annotation,)


def _accepts(field: FieldInfo, kind: type) -> bool:
    return any(member is kind or get_origin(member) is kind for member in _members(field.annotation))


def _fits(field: FieldInfo, value: Any) -> bool:
    try:
        TypeAdapter(_typed(field)).validate_python(_plain(value), strict=True)
    except ValidationError:
        return False
    return True


def _choices(annotation: Any) -> tuple[str, ...]:
    """Return the names of a closed list, empty for other types."""
    return tuple(
        str(choice)
        for member in _members(annotation)
        if get_origin(member) is Literal
        for choice in get_args(member)
        if choice is not None
    )


_BOUNDS = {
    "ge": "of at least {}",
    "gt": "above {}",
    "le": "of at most {}",
    "lt": "below {}",
    "min_length": "of at least {} characters",
    "max_length": "of at most {} characters",
    "pattern": "that matches {}",
}
_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "none",
}
_PLURALS = {"a whole number": "whole numbers", "a number": "numbers", "text": "texts"}
_PLACEHOLDERS: Mapping[Any, str] = {int: "N", float: "NUMBER", bool: "true|false", str: "TEXT"}


def _in_words(field: FieldInfo) -> str:
    """Say what a value must be."""
    return _type_in_words(_typed(field))


def _type_in_words(annotation: Any) -> str:
    bounds: list[Any] = []
    while hasattr(annotation, "__metadata__"):
        for bound in annotation.__metadata__:
            if isinstance(bound, InWords):
                return bound.text
            bounds += bound.metadata if isinstance(bound, FieldInfo) else [bound]
        annotation = get_args(annotation)[0]
    found = _bounds_in_words(bounds)
    kind = get_origin(annotation)
    if kind in (Union, types.UnionType):
        return " or ".join(_type_in_words(part) for part in get_args(annotation))
    if kind is Literal:
        choices = [str(choice) for choice in get_args(annotation)]
        return ("one of " if len(choices) > 1 else "") + ", ".join(choices)
    if kind in (tuple, list, Sequence):
        inner = [part for part in get_args(annotation) if part is not Ellipsis]
        if len(inner) > 1:
            return f"a list of {len(inner)}: " + ", ".join(map(_type_in_words, inner))
        return f"a list of {_plural(_type_in_words(inner[0]))}"
    if kind in (dict, Mapping):
        inner = [part for part in get_args(annotation)[1:] if part is not Any]
        return "a table of " + _plural(_type_in_words(inner[0])) if inner else "a table"
    if kind is Callable:
        return "a function"
    name = _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))
    return " ".join([name, " and ".join(found).replace(" and that ", " that ")]).strip()


def _bounds_in_words(bounds: Sequence[Any]) -> list[str]:
    limits = {key: getattr(bound, key) for bound in bounds for key in _BOUNDS if getattr(bound, key, None) is not None}
    if {"ge", "le"} <= limits.keys():
        return [f"from {limits['ge']} to {limits['le']}"]
    return [_BOUNDS[key].format(limit) for key, limit in limits.items()]


def _plural(words: str) -> str:
    for one, many in _PLURALS.items():
        if words.startswith(one):
            return many + words.removeprefix(one)
    return words.removeprefix("one of ")


def _placeholder(annotation: Any) -> str:
    """Say in a word what a command's help shows for a value."""
    members = [member for member in _members(annotation) if member is not type(None)]
    choices = _choices(annotation)
    if choices:
        others = [_PLACEHOLDERS[member] for member in members if member in _PLACEHOLDERS]
        return "|".join([*others, *choices])
    if get_origin(members[0]) is tuple:
        inner = _placeholder(get_args(members[0])[0])
        return f"{inner},{inner}.."
    return _PLACEHOLDERS.get(members[0], "VALUE")
