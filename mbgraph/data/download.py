"""From a card to a dataset on disk: get the files, verify them, read them, check the result, put it in its place.

Everything happens in the hidden folder ``.NAME.download`` beside the place. Files stay there while some are missing, so
that the next call goes on; the dataset appears under its name in one step at the very end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np

from mbgraph.data import formats
from mbgraph.data.card import COUNT, Card, CardFile
from mbgraph.data.cards import get_card
from mbgraph.data.dataset import SPLITS, MultiBehaviorDataset
from mbgraph.data.formats.folder import claimed_folder
from mbgraph.data.formats.npz import check_place, is_npz, read_npz, write_npz
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.data.transfer import Missing, Policy, Progress, check_file, copy_file, fetch, without_credentials
from mbgraph.errors import DataError, RunError, UsageError
from mbgraph.files import read_json, user_path

if TYPE_CHECKING:
    import requests

__all__ = ["check_against", "download"]

_SPARE = 64 << 20  # bytes that a disk should have left beside the files themselves


def download(
    card: Card | str,
    root: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
    policy: Policy | None = None,
    session: requests.Session | None = None,
) -> Path:
    """Make the dataset of a card and return its folder, ``root/NAME``.

    Parameters
    ----------
    card : Card or str
        A card or the name of one.
    root : path
        Folder of datasets; made if missing.
    source : URL or path, optional
        A mirror or a local folder that holds the files, by their plain names or by their paths in the repository. By
        default they come from where the card says. For a dataset without published hashes, a local folder in any format
        that mbgraph reads.
    force : bool
        Replace an existing dataset of this name.
    progress : callable, optional
        See `mbgraph.data.transfer.Progress`.
    policy : Policy, optional
        Retries and timeouts.
    session : requests.Session, optional
        By default a new one, which honors the proxy variables of the environment.

    Raises
    ------
    UsageError
        If the place is taken, the source is neither folder nor http(s) URL, or the card cannot be downloaded.
    RunError
        If the files cannot be had: no connection, a refusal, a full disk. What has arrived is kept for the next call.
    DataError
        If a file or the finished dataset is not what the card says.
    """
    if isinstance(card, str):
        card = get_card(card)
    root = user_path(root)
    place = root / card.name
    check_place(place, force)
    folder, base, credentials = _split_source(source)
    told = progress or _silent
    with claimed_folder(place):
        check_place(place, force)
        if not card.is_verifiable or (source is None and not card.is_downloadable):
            if folder is None:
                raise _by_hand(card)
            told(card.name, 0, None, "reading")
            ds, facts, scratch = _read_folder(card, folder), {"from": str(folder)}, None
        else:
            scratch = _scratch(root, card)
            _check_space(card, root, scratch)
            if folder is not None:
                _copy_all(card, folder, scratch, told)
            else:
                _fetch_all(card, base, scratch, told, replace(policy or Policy(), credentials=credentials), session)
            told(card.name, 0, None, "reading")
            ds, facts = _read_source(card, scratch), _provenance(card, source)
        check_against(card, ds)
        told(card.name, 0, None, "writing")
        _write(card, ds, place, force, facts)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return place


def check_against(card: Card, ds: MultiBehaviorDataset) -> None:
    """Raise `DataError` at the first thing in which a dataset is not what its card says."""
    facts: list[tuple[str, Any, Any]] = [("users", ds.num_users, card.users), ("items", ds.num_items, card.items)]
    facts.append(("behaviors", sorted(ds.behaviors), sorted(card.behaviors)))
    facts.append(("target", ds.target, card.target))
    if card.counts:
        facts += [(f"{part} pairs", ds.counts.get(part, 0), n) for part, n in card.counts.items()]
        facts += [(f"{part} pairs", n, 0) for part, n in ds.counts.items() if part not in card.counts]
    for what, found, expected in facts:
        if found != expected:
            raise DataError(
                f"this is not the {card.name} of its card: {what} are {found}, not {expected}",
                f"see mbgraph data show {card.name}",
            )
    if card.content_hash is not None and ds.content_hash() != card.content_hash:
        raise DataError(
            f"this is not the {card.name} of its card: the counts agree, the pairs do not",
            "get it from another place, or see whether ids were shifted or reordered",
        )


def _by_hand(card: Card) -> UsageError:
    how = card.by_hand or f"see {card.homepage}"
    if card.format != "events":
        how += f" Then: mbgraph data download {card.name} --from DIR"
    return UsageError(f"{card.name} cannot be downloaded automatically", how)


def _silent(name: str, done: int, total: int | None, note: str) -> None:
    """Tell nobody."""


def _split_source(
    source: str | os.PathLike[str] | None,
) -> tuple[Path | None, str | None, tuple[str, str] | None]:
    """Return a folder, or a URL and what it holds of user and password, which stay apart from here on."""
    if source is None:
        return None, None, None
    text = os.fspath(source)
    if "://" not in text:
        folder = user_path(text)
        if folder.is_dir():
            return folder, None, None
    else:
        shown = without_credentials(text)
        try:
            parts = urlsplit(text)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise UsageError(f"cannot download from {shown!r} ({error})", "correct the URL") from error
        if parts.scheme.lower() in ("http", "https") and host:
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            credentials = (user, password) if parts.username is not None else None
            return None, parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/"), credentials
        raise UsageError(f"cannot download from {shown!r}", "give an http or https URL, or a folder by its path")
    raise UsageError(f"{text} is no folder", "give a folder that holds the files, or an http or https URL")


def _scratch(root: Path, card: Card) -> Path:
    scratch = root / f".{card.name}.download"
    try:
        if scratch.is_symlink() or (scratch.exists() and not scratch.is_dir()):
            raise UsageError(f"{scratch} is no folder", "remove it")
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {scratch}: {error.strerror or error}", "choose another folder (--to)") from error
    return scratch


def _check_space(card: Card, root: Path, scratch: Path) -> None:
    """Raise `RunError` if the files and the dataset made of them would not fit."""
    missing = sum(source.size or 0 for source in card.sources if not (scratch / source.name).exists())
    needed = 2 * missing + _SPARE
    free = shutil.disk_usage(root).free
    if free < needed:
        raise RunError(
            f"{root} has {free / 1e6:,.0f} MB left, {card.name} needs {needed / 1e6:,.0f} MB",
            "free some space or choose another folder (--to)",
        )


def _waiting(card: Card, scratch: Path) -> list[CardFile]:
    """Return the sources whose file is not there yet or not right."""
    waiting = []
    for source in card.sources:
        path = scratch / source.name
        if path.is_symlink() or (path.exists() and (not path.is_file() or check_file(path, source))):
            try:
                path.unlink()
            except OSError as error:
                raise RunError(f"cannot replace {path}: {error.strerror or error}", "remove it") from error
        if not path.exists():
            waiting.append(source)
    return waiting


def _copy_all(card: Card, folder: Path, scratch: Path, progress: Progress) -> None:
    found = {source: _first_file(folder, source) for source in _waiting(card, scratch)}
    missing = [source.name for source, path in found.items() if path is None]
    if missing:
        raise UsageError(
            f"{folder} lacks {', '.join(missing)}", f"put {_files(card.sources)} of {card.name} there, unchanged"
        )
    for source, path in found.items():
        if path is not None:
            copy_file(path, scratch / source.name, source, progress)


def _first_file(folder: Path, source: CardFile) -> Path | None:
    return next((path for path in (folder / source.path, folder / source.name) if path.is_file()), None)


def _fetch_all(
    card: Card,
    base: str | None,
    scratch: Path,
    progress: Progress,
    policy: Policy,
    session: requests.Session | None,
) -> None:
    import requests

    own = session or requests.Session()
    own.headers.setdefault("User-Agent", "mbgraph")
    try:
        for source in _waiting(card, scratch):
            _fetch_one(own, _addresses(source, base), scratch / source.name, source, policy, progress)
    except RunError as error:
        names = _files(_waiting(card, scratch))
        raise RunError(
            error.message,
            f"get {names} ({_origins(card)}) by other means, put them into a folder DIR and run: "
            f"mbgraph data download {card.name} --from DIR",
        ) from error
    finally:
        if session is None:
            own.close()


def _addresses(source: CardFile, base: str | None) -> list[str]:
    """Return where to look for a file: its published place, or the two layouts that a mirror may have."""
    if base is None:
        return [source.url] if source.url is not None else []
    return [f"{base}/{quote(source.name)}", f"{base}/{quote(source.path)}"]


def _fetch_one(
    session: requests.Session, addresses: list[str], path: Path, source: CardFile, policy: Policy, progress: Progress
) -> None:
    for address in addresses[:-1]:
        try:
            fetch(session, address, path, source, policy, progress)
        except Missing:
            continue
        return
    fetch(session, addresses[-1], path, source, policy, progress)


def _files(sources: Sequence[CardFile]) -> str:
    return ", ".join(source.name for source in sources)


def _origins(card: Card) -> str:
    """Return the repositories of a card's files, with their commits."""
    places = dict.fromkeys(
        f"{source.path.rpartition('/')[0]} of {source.repository} at {(source.commit or '')[:7]}"
        for source in card.sources
        if source.repository
    )
    return "; ".join(places) or card.homepage


def _read_source(card: Card, folder: Path) -> MultiBehaviorDataset:
    """Read verified files: one of them per behavior and split, or a folder in the npz layout."""
    if card.format == "npz":
        return read_npz(folder)
    parts: dict[str, Pairs] = {}
    for source in card.sources:
        path = folder / source.name
        if source.part == COUNT:
            _check_count(card, path)
        else:
            parts[source.part] = _distinct(_cropped(formats.read_part(path, source.format), card.crop), card.items)
    edges = {behavior: parts[behavior] for behavior in card.behaviors}
    splits = {split: parts[split] for split in SPLITS if split in parts}
    users, items = (Vocabulary(size=size, kind=kind) for kind, size in (("user", card.users), ("item", card.items)))
    return MultiBehaviorDataset(card.name, users, items, edges, card.target, splits)


def _read_folder(card: Card, folder: Path) -> MultiBehaviorDataset:
    """Read a folder that the user vouches for; nothing but the result can be checked."""
    if is_npz(folder):
        return read_npz(folder)
    if card.format == "events":
        raise _by_hand(card)
    return formats.read(folder, None if card.format == "npz" else card.format, target=card.target)


def _check_count(card: Card, path: Path) -> None:
    count = read_json(path)
    if not isinstance(count, dict) or (count.get("user"), count.get("item")) != (card.users, card.items):
        raise DataError(
            f"{path.name} of {card.name} says {count}, the card says {card.users} users and {card.items} items",
            "report the card",
        )


def _cropped(pairs: Pairs, crop: tuple[int, int] | None) -> Pairs:
    return pairs if crop is None else pairs[(pairs.user < crop[0]) & (pairs.item < crop[1])]


def _distinct(pairs: Pairs, num_items: int) -> Pairs:
    """Return each pair once, the first of its kind, in the order of the file."""
    if not len(pairs):
        return pairs
    # a key must not depend on ids being in range, which is checked later: then the message can name the pair
    width = max(num_items, int(pairs.item.max()) + 1)
    first = np.unique(pairs.keys(width), return_index=True)[1]
    return pairs if len(first) == len(pairs) else pairs[np.sort(first)]


def _provenance(card: Card, source: str | os.PathLike[str] | None) -> dict[str, Any]:
    files = {
        entry.name: {key: value for key in ("url", "git_blob", "sha256") if (value := getattr(entry, key))}
        for entry in card.sources
    }
    return {"from": "published" if source is None else without_credentials(os.fspath(source)), "files": files}


def _write(card: Card, ds: MultiBehaviorDataset, place: Path, force: bool, facts: dict[str, Any]) -> None:
    meta = {**ds.metadata.get("meta", {}), "source": card.title, "notes": card.splits.get("note", "")}
    metadata = {
        **ds.metadata,
        "meta": meta,
        "download": {"card": card.name, "protocol": card.protocol, **facts},
    }
    write_npz(ds.replace(name=card.name, metadata=metadata), place, overwrite=force)
