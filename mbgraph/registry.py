"""Named plug-ins: models and regularizers register here, third parties through an entry-point group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from mbgraph.errors import UnknownNameError, UsageError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """A closed list of names and what they stand for.

    Parameters
    ----------
    kind : str
        Singular noun used in error messages, for example ``"model"``.
    group : str
        Entry-point group read on first use, for example ``"mbgraph.models"``. A package adds a model with
        ``[project.entry-points."mbgraph.models"] mymodel = "mypackage:MyModel"``.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self._entries: dict[str, T] = {}
        self._plugins_loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its argument under ``name``; a taken name raises `UsageError`."""

        def file(entry: T) -> T:
            taken = self._entries.get(name)
            if taken is not None and taken is not entry:
                raise UsageError(f"{self.kind} name {name!r} is already taken by {taken!r}", "choose another name")
            self._entries[name] = entry
            return entry

        return file

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for point in entry_points(group=self.group):
            if point.name not in self._entries:
                self._entries[point.name] = point.load()

    def get(self, name: str) -> T:
        """Return the entry called ``name``; raises `UnknownNameError` that names the nearest one."""
        self._load_plugins()
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)
        return self._entries[name]

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._load_plugins()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        self._load_plugins()
        return name in self._entries
