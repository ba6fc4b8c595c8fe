"""What a dataset card holds: the facts about a dataset and its source files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field, StringConstraints

from mbgraph.schema import InWords, Section

__all__ = ["COUNT", "Card", "CardFile"]

COUNT = "count"
"""The part of a file that holds the numbers of users and items."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), InWords("text")]
Count = Annotated[int, Field(ge=0, le=2**40)]
Size = Annotated[int, Field(ge=1, le=2**40)]
Share = Annotated[float, Field(ge=0, le=1)]
Sha1 = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$"), InWords("40 hexadecimal digits")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$"), InWords("64 hexadecimal digits")]
Repository = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+$"), InWords("owner/name of a GitHub repository")
]


class CardFile(Section):
    """One file of a dataset."""

    called = "a file of 'sources'"

    part: Text
    """The behavior or split that the file holds; ``count`` for the file with the numbers of users and items; for a card
    of format ``npz`` any name."""
    path: Text
    """Path inside the repository, with ``/``. Its last piece is what the file is called on disk."""
    format: Text
    """One of `mbgraph.data.formats.FORMATS`."""
    repository: Repository | None = None
    """GitHub owner/name."""
    commit: Sha1 | None = None
    """The full commit id."""
    git_blob: Sha1 | None = None
    """The id that git gives to the content, which a download is checked against."""
    sha256: Sha256 | None = None
    """SHA-256 of the content, the other way to check it."""
    size: Count | None = None
    """Bytes."""

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


class Card(Section):
    """What is known about a dataset before any of its files is at hand."""

    called = "the card"

    name: Annotated[
        str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,63}$"), InWords("a name of small letters, digits and _, at most 64")
    ]
    """What the dataset is called in commands, and the card's file."""
    title: Text
    """A heading."""
    description: Text
    """What it is, in a sentence or two."""
    citation: Text
    """Whom to cite."""
    licence: Text
    """Terms of use, or the statement that none are published."""
    homepage: Annotated[str, Field(pattern=r"^https://\S+$"), InWords("an address that starts with https://")]
    """Where it is published."""
    format: Text
    """Format of the source files, one of `mbgraph.data.formats.FORMATS`; a source or a file may have its own."""
    users: Size
    """Number of users, those without any pair included."""
    items: Size
    """Number of items, those without any pair included."""
    behaviors: Annotated[tuple[Text, ...], Field(min_length=1), InWords("a list of names")]
    """In the order of the dataset; the target is one of them."""
    target: Text
    """The behavior to predict."""
    protocol: Text
    """Name of the way the split was made: ``loo``, ``ratio:0.7,0.2,0.1``, .."""
    splits: Mapping[str, Text]
    """How each part of the split came to be (``train``, ``valid``, ``test``), what the ``order`` of pairs means, and a
    ``note``."""
    counts: Mapping[str, Count] = Field(default_factory=dict)
    """Distinct pairs per behavior (train) and per split; empty where nobody published them."""
    bar: Mapping[str, Share] = Field(default_factory=dict)
    """Behavior alignment rate per auxiliary behavior (paper Eq. 12), rounded to four decimals."""
    dt: Share | None = None
    """Share of direct targets, rounded to four decimals."""
    aliases: Mapping[str, Annotated[tuple[Text, ...], InWords("a list of names")]] = Field(default_factory=dict)
    """What publishers call each behavior."""
    paper: Mapping[str, Annotated[int | float, InWords("a number")]] = Field(default_factory=dict)
    """The dataset's row in Tables 1 and 5 of the RMBRec paper."""
    sources: Annotated[tuple[CardFile, ...], InWords("tables", "write them as [[sources]]")] = ()
    """Files; empty where no place is known whose files could be checked."""
    content_hash: Sha256 | None = None
    """`MultiBehaviorDataset.content_hash` of the finished dataset, where it is known."""
    crop: Annotated[tuple[Size, Size], InWords("[users, items], two whole numbers of at least 1")] | None = None
    """(users, items): keep only pairs of the first so many of each."""
    by_hand: Text | None = None
    """For a dataset that cannot be downloaded: how to get it."""

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
