"""What a dataset card holds: the facts about a dataset and its source files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

__all__ = ["COUNT", "Card", "Source"]

COUNT = "count"
"""The part of a file that holds the numbers of users and items."""


@dataclass(frozen=True)
class Source:
    """One file of a dataset.

    Attributes
    ----------
    part : str
        The behavior or split that the file holds; ``"count"`` for the file with the numbers of users and items; for a
        card of format ``npz`` any name.
    path : str
        Path inside the repository, with ``/``. Its last piece is what the file is called on disk.
    format : str
        One of `mbgraph.data.formats.FORMATS`.
    repository, commit : str, optional
        GitHub owner/name and the full commit id.
    git_blob, sha256 : str, optional
        What the content is checked against: the id git gives to it, or its SHA-256.
    size : int, optional
        Bytes.
    """

    part: str
    path: str
    format: str
    repository: str | None = None
    commit: str | None = None
    git_blob: str | None = None
    sha256: str | None = None
    size: int | None = None

    @property
    def name(self) -> str:
        """What the file is called on disk."""
        return PurePosixPath(self.path).name

    @property
    def url(self) -> str | None:
        """Where the file is published, None where the card knows no such place."""
        if self.repository is None or self.commit is None:
            return None
        return f"https://raw.githubusercontent.com/{self.repository}/{self.commit}/{self.path}"

    @property
    def is_verifiable(self) -> bool:
        """Whether a download of it can be checked."""
        return self.git_blob is not None or self.sha256 is not None


@dataclass(frozen=True)
class Card:
    """What is known about a dataset before any of its files is at hand.

    Attributes
    ----------
    name, title, description, citation, homepage : str
    licence : str
        Terms of use, or the statement that none are published.
    format : str
        Format of the source files, see `Source`; a `Source` may say otherwise for itself.
    users, items : int
        Numbers of them, those without any pair included.
    behaviors : tuple of str
        In the order of the dataset; the target is one of them.
    target : str
    counts : mapping of str to int
        Distinct pairs per behavior (train) and per split; empty where nobody published them.
    bar : mapping of str to float
        Behavior alignment rate per auxiliary behavior (paper Eq. 12), rounded to four decimals.
    dt : float or None
        Share of direct targets, rounded to four decimals.
    aliases : mapping of str to tuple of str
        What publishers call each behavior.
    protocol : str
        Name of the way the split was made: ``loo``, ``ratio:0.7,0.2,0.1``, ...
    splits : mapping of str to str
        How each part of the split came to be, and ``order``: what the order of pairs means.
    paper : mapping of str to float
        The dataset's row in Tables 1 and 5 of the RMBRec paper.
    sources : tuple of Source
        Files; empty where no place is known whose files could be checked.
    content_hash : str or None
        `MultiBehaviorDataset.content_hash` of the finished dataset, where it is known.
    crop : tuple of int or None
        (users, items): keep only pairs of the first so many of each.
    by_hand : str or None
        For a dataset that cannot be downloaded: how to get it.
    """

    name: str
    title: str
    description: str
    citation: str
    licence: str
    homepage: str
    format: str
    users: int
    items: int
    behaviors: tuple[str, ...]
    target: str
    protocol: str
    splits: Mapping[str, str]
    counts: Mapping[str, int] = field(default_factory=dict)
    bar: Mapping[str, float] = field(default_factory=dict)
    dt: float | None = None
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    content_hash: str | None = None
    crop: tuple[int, int] | None = None
    by_hand: str | None = None

    @property
    def is_verifiable(self) -> bool:
        """Whether there are source files and every one has a hash."""
        return bool(self.sources) and all(source.is_verifiable for source in self.sources)

    @property
    def is_downloadable(self) -> bool:
        """Whether every file has a hash and a place."""
        return self.is_verifiable and all(source.url for source in self.sources)

    @property
    def size(self) -> int | None:
        """Bytes of all source files; None if one is unknown."""
        sizes = [source.size for source in self.sources]
        return None if not sizes or None in sizes else sum(size for size in sizes if size is not None)
