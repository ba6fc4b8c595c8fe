"""Typed, frozen sections of a configuration: one class per section, its fields the only place where an option is named.

Flags, TOML keys, error messages and the tables of the documentation are all read off the fields. A value of the wrong
type or out of range raises one line that names the field, what it must be and what it is by default.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mbgraph.errors import UnknownNameError, UsageError

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

__all__ = ["FieldFacts", "Section", "parse_assignment", "parse_value", "tomllib"]

S = TypeVar("S", bound="Section")
_LONGEST = 60  # characters of a wrong value that a message shows


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
    """

    name: str
    type: str
    default: Any
    doc: str


class Section(BaseModel):
    """Base of every section.

    A subclass writes one annotated field per option with a docstring below it, and sets `title`, what messages call it.
    Where fields contradict each other, a validator of its own raises `UsageError`. Values are checked strictly: no text
    for a number, no number for a truth value, no NaN. Numpy scalars count as Python's, lists as tuples.

    Raises
    ------
    UnknownNameError
        For a field that does not exist or a name outside a closed list; names the nearest one.
    UsageError
        For a value of the wrong type or out of range, and where fields contradict each other.

    Examples
    --------
    >>> from typing import Annotated
    >>> from pydantic import Field
    >>> class Box(Section):
    ...     title = "box"
    ...     width: Annotated[int, Field(ge=1)] = 3
    ...     '''Millimetres.'''
    >>> Box(width=4).width, Box.from_text({"width": "5"}).width
    (4, 5)
    >>> Box(width=0)
    Traceback (most recent call last):
    mbgraph.errors.UsageError: width of box must be a whole number of at least 1, got 0; the default is 3
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
    )

    title: ClassVar[str] = "configuration"
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
        read = parse_value(value)
        if not isinstance(read, str):
            return read if not _accepts(field, str) or _fits(field, read) else value
        if read.lower() == "none" and _accepts(field, type(None)):
            return None
        if _accepts(field, tuple) and not read.startswith("["):
            return parse_value(f"[{read}]")
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
            default = None if field.default is PydanticUndefined else field.default
            doc = " ".join((field.description or "").split())
            yield FieldFacts(name, _in_words(field), default, doc)

    def values(self) -> dict[str, Any]:
        """Return the value of every field by name."""
        return {name: getattr(self, name) for name in self.names()}

    def plain(self) -> dict[str, Any]:
        """Return values that TOML and JSON can hold: tuples as lists, None left out."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.values().items()
            if value is not None
        }

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """Show what differs from the default."""
        fields = type(self).model_fields
        return ((name, value) for name, value in self.values().items() if value != fields[name].default)

    def replace(self: S, **changes: Any) -> S:
        """Return a copy with some fields changed, checked like a new one."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})


def parse_value(text: str) -> Any:
    """Read a value as TOML would (``3``, ``0.5``, ``true``, ``[1, 2]``), anything else as a string."""
    try:
        values = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return values["value"] if len(values) == 1 else text


def parse_assignment(text: str) -> tuple[str, str]:
    """Split ``key=value``; both stay text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"cannot read {text!r}", "write it as key=value")
    return key.strip(), value.strip()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return tuple(_plain(entry) for entry in value) if isinstance(value, list) else value


def _explained(section: type[Section], error: ValidationError) -> UsageError:
    """Return the first problem as one line."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    if not path:
        return UsageError(f"{section.title}: {problem['msg']}")
    name = path[0]
    if problem["type"] == "extra_forbidden":
        return UnknownNameError(f"option of {section.title}", name, section.names())
    field = section.model_fields[name]
    if problem["type"] == "missing":
        return UsageError(f"{section.title} needs {name!r}, {_in_words(field)}")
    value = problem["input"]
    choices = _choices(_typed(field))
    if choices and isinstance(value, str):
        return UnknownNameError(f"{name} of {section.title}", value, choices)
    shown = repr(value)
    shown = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 2] + ".."
    default = field.default
    remedy = None if default in (PydanticUndefined, None, "") else f"the default is {_shown(default)}"
    return UsageError(f"{name} of {section.title} must be {_in_words(field)}, got {shown}", remedy)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(_shown, value))}]" if isinstance(value, tuple) else str(value)


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


_BOUNDS = {"ge": "of at least {}", "gt": "above {}", "le": "of at most {}", "lt": "below {}"}
_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "none",
}


def _in_words(field: FieldInfo) -> str:
    """Say what a value must be."""
    return _type_in_words(_typed(field))


def _type_in_words(annotation: Any) -> str:
    bounds: list[Any] = []
    while hasattr(annotation, "__metadata__"):
        for bound in annotation.__metadata__:
            bounds += bound.metadata if isinstance(bound, FieldInfo) else [bound]
        annotation = get_args(annotation)[0]
    limits = {key: getattr(bound, key) for bound in bounds for key in _BOUNDS if getattr(bound, key, None) is not None}
    if {"ge", "le"} <= limits.keys():
        found = [f"from {limits['ge']} to {limits['le']}"]
    else:
        found = [_BOUNDS[key].format(limit) for key, limit in limits.items()]
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_type_in_words(part) for part in get_args(annotation))
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (tuple, list, Sequence):
        inner = _type_in_words(get_args(annotation)[0]).removeprefix("a ").removeprefix("one of ")
        kind = {"whole number": "whole numbers", "number": "numbers", "text": "texts"}
        head = next((word for word in kind if inner.startswith(word)), None)
        return "a list of " + (inner if head is None else kind[head] + inner.removeprefix(head))
    if get_origin(annotation) in (dict, Mapping) or annotation in (dict, Mapping):
        return "a table"
    name = _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))
    return " ".join([name, " and ".join(found)]).strip()
