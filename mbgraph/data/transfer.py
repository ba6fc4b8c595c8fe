"""One file over HTTP: retried, resumed, and never believed before its hash is."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from mbgraph.errors import DataError, RunError, UsageError
from mbgraph.files import open_file

if TYPE_CHECKING:
    import requests

    from mbgraph.data.card import CardFile

__all__ = [
    "Missing",
    "Policy",
    "Progress",
    "check_file",
    "copy_file",
    "fetch",
    "git_blob_id",
    "verify",
    "without_credentials",
]

_CHUNK = 1 << 18
_SCHEMES = ("http", "https")
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # what a server may get over

Progress = Callable[[str, int, "int | None", str], None]
"""Called with the file's name, bytes so far, bytes in all (None: unknown) and a note (often empty)."""


@dataclass(frozen=True)
class Policy:
    """How patient a transfer is.

    Attributes
    ----------
    retries : int
        Further attempts after the first.
    backoff : float
        Seconds before the first further attempt; doubled each time, at most 30.
    connect_timeout, read_timeout : float
        Seconds without a connection, and without a single byte, before an attempt is given up.
    max_redirects : int
    max_bytes : int
        Limit for a file whose size the card does not say.
    chunk : int
        Bytes that are written at a time; fewer than these are lost when a connection breaks.
    credentials : (str, str), optional
        User and password for the host that is asked first; no other gets them, and nothing shows them.
    """

    retries: int = 4
    backoff: float = 1.0
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    max_redirects: int = 5
    max_bytes: int = 4 << 30
    chunk: int = 1 << 16
    credentials: tuple[str, str] | None = field(default=None, repr=False)


class Missing(RunError):
    """A server that answers, but does not have the file."""


class _Passing(RunError):
    """A failure that another attempt may get over."""


def git_blob_id(content: bytes) -> str:
    """Return the id that git gives to a file with this content.

    Examples
    --------
    >>> git_blob_id(b"")
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return _blob_hash(len(content), content).hexdigest()


def _blob_hash(size: int, content: bytes = b"") -> Any:
    # SHA-1 because git names its blobs by it; files are named by a commit besides
    return hashlib.sha1(b"blob %d\0" % size + content, usedforsecurity=False)


def check_file(path: Path, source: CardFile) -> str | None:
    """Return what is wrong with a file, or None if its size and hashes are those of the source."""
    size = path.stat().st_size
    if source.size is not None and size != source.size:
        return f"it has {size:,} bytes instead of {source.size:,}"
    digests = {}
    if source.git_blob is not None:
        digests["git blob"] = (_blob_hash(size), source.git_blob)
    if source.sha256 is not None:
        digests["SHA-256"] = (hashlib.sha256(), source.sha256)
    if not digests:
        return "its card has no hash to check it against"
    with open_file(path) as file:
        while block := file.read(_CHUNK):
            for digest, _ in digests.values():
                digest.update(block)
    for kind, (digest, expected) in digests.items():
        if digest.hexdigest() != expected:
            return f"its {kind} is {digest.hexdigest()[:12]} instead of {expected[:12]}"
    return None


def verify(path: Path, source: CardFile) -> None:
    """Raise `DataError` unless the file's size and hashes are those of the source."""
    wrong = check_file(path, source)
    if wrong:
        raise DataError(f"{path} is not the {source.name} of the card: {wrong}", "get it from another place")


def copy_file(found: Path, path: Path, source: CardFile, progress: Progress) -> None:
    """Copy a local file and verify the copy; a copy that is wrong is removed."""
    try:
        shutil.copyfile(found, path)
        wrong = check_file(path, source)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise RunError(f"cannot copy {found} to {path}: {error.strerror or error}", "free some space") from error
    if wrong:
        path.unlink()
        raise DataError(f"{found} is not the {source.name} of the card: {wrong}", "get it from another place")
    progress(source.name, path.stat().st_size, source.size, "verified")


def fetch(
    session: requests.Session, url: str, path: Path, source: CardFile, policy: Policy, progress: Progress
) -> None:
    """Download one file to ``path`` and verify it.

    Bytes gather in ``<path>.part``, which a later call continues. The part becomes ``path`` once its hash is right;
    a whole file whose hash is wrong is removed and asked for once more.

    Parameters
    ----------
    session : requests.Session
        Carries proxies and connections.
    url : str
        http or https.
    path : Path
    source : CardFile
        What the content must be.
    policy : Policy
    progress : callable
        See `Progress`.

    Raises
    ------
    Missing
        If the server does not have the file (404, 410).
    RunError
        If the server cannot be reached, refuses, or breaks off again and again. Bytes so far are kept.
    DataError
        If the server sends something else than the card says.
    UsageError
        If the URL or a redirect leaves http and https.
    """
    part = path.with_name(path.name + ".part")
    if part.is_symlink():  # whoever made it, writing through it would reach another place
        part.unlink()
    corrupt = 0
    for attempt in range(policy.retries + 1):
        try:
            _attempt(session, url, part, source, policy, progress)
        except _Passing as error:
            if attempt == policy.retries:
                raise RunError(f"cannot download {url}: {error.message}", error.remedy) from error
            wait = min(policy.backoff * 2**attempt, 30.0)
            progress(source.name, _held(part), source.size, f"{error.message}; trying again in {wait:g} s")
            time.sleep(wait)
            continue
        wrong = check_file(part, source)
        if not wrong:
            os.replace(part, path)
            progress(source.name, path.stat().st_size, source.size, "verified")
            return
        part.unlink()
        corrupt += 1
        if (
            corrupt == 2 or attempt == policy.retries
        ):  # a broken resume is possible once, the same twice is the server's
            raise DataError(
                f"{url} is not the {source.name} of the card: {wrong}", "try another place with --from URL or DIR"
            )
        progress(source.name, 0, source.size, f"{wrong}; asking for it again")
    raise RunError(f"cannot download {url}", "try again later")


def _held(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _attempt(
    session: requests.Session, url: str, part: Path, source: CardFile, policy: Policy, progress: Progress
) -> None:
    """Ask for what is missing and append it; returns when the file is as long as it should be."""
    import requests

    limit = policy.max_bytes if source.size is None else source.size
    held = _held(part)
    if held > limit:
        part.unlink()
        held = 0
    if source.size is not None and held == source.size and held:
        return
    try:
        with _open(session, url, held, policy) as response:
            if response.status_code == 416:  # the part is no beginning of what the server has
                part.unlink(missing_ok=True)
                raise _Passing("the server cannot continue the file", "try again")
            held, total = _place(response, held)
            expected = source.size or total
            if total is not None and (total > limit or total != expected):
                raise DataError(
                    f"{url} has {total:,} bytes, the card says {limit:,}", "try another place with --from URL or DIR"
                )
            _write(response, part, held, expected, limit, policy.chunk, source, progress)
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise _Passing(_reason(error), "check the connection or the proxy") from error
    except requests.exceptions.Timeout as error:
        raise _Passing("the server stopped answering", "check the connection or the proxy") from error
    except requests.exceptions.RequestException as error:
        raise RunError(f"cannot download {url}: {_reason(error)}", "check the address and the proxy") from error


def _open(session: requests.Session, url: str, held: int, policy: Policy) -> requests.Response:
    """Return an answer that holds the file, following redirects by hand so that none leaves http and https."""
    # identity: a compressed answer has other bytes than the file, and could not be continued
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={held}-"} if held else {})}
    start = url
    for _ in range(policy.max_redirects + 1):
        scheme = urlsplit(url).scheme.lower()
        if scheme not in _SCHEMES or (scheme == "http" and urlsplit(start).scheme.lower() == "https"):
            raise UsageError(
                f"{start} leads to {without_credentials(url)[:200]!r}",
                "only http and https are followed, never down to http",
            )
        response = session.get(
            url,
            headers=headers,
            stream=True,
            allow_redirects=False,
            timeout=(policy.connect_timeout, policy.read_timeout),
            auth=policy.credentials if _origin(url) == _origin(start) else None,
        )
        status = response.status_code
        if status in _REDIRECTS and response.headers.get("Location"):
            url = urljoin(url, response.headers["Location"])
            response.close()
            continue
        if status in (200, 206, 416):
            return response
        response.close()
        reason = f"the server answers {status} {response.reason or ''}".rstrip()
        if status in _PASSING:
            raise _Passing(reason, "try again later")
        if status in (404, 410):
            raise Missing(f"{start}: {reason}", "try another place with --from URL or DIR")
        raise RunError(f"{start}: {reason}", "try another place with --from URL or DIR")
    raise RunError(f"{start} redirects more than {policy.max_redirects} times", "try another place with --from")


def _place(response: requests.Response, held: int) -> tuple[int, int | None]:
    """Return where the answer's bytes go, and how long the file will be if the answer says so."""
    length = response.headers.get("Content-Length", "")
    packed = response.headers.get("Content-Encoding", "identity").lower() != "identity"  # then it counts other bytes
    announced = int(length) if length.isdecimal() and not packed else None
    if response.status_code == 206:
        start = response.headers.get("Content-Range", "").lower().removeprefix("bytes ").partition("-")[0]
        if start != str(held):
            raise RunError(
                f"{without_credentials(response.url)} sends bytes from {start[:20]!r} instead of {held}",
                "try another place",
            )
        return held, None if announced is None else held + announced
    return 0, announced  # the server ignored the range and sends everything


def _write(
    response: requests.Response,
    part: Path,
    held: int,
    expected: int | None,
    limit: int,
    chunk: int,
    source: CardFile,
    progress: Progress,
) -> None:
    import requests

    try:
        with part.open("ab" if held else "wb") as file:
            for block in response.iter_content(chunk):
                held += len(block)
                if held > limit:
                    file.truncate(0)
                    raise DataError(
                        f"{without_credentials(response.url)} sends more than {limit:,} bytes",
                        "try another place with --from",
                    )
                file.write(block)
                progress(source.name, held, expected, "")
    except requests.exceptions.RequestException:  # an OSError too, but not of the disk
        raise
    except OSError as error:
        raise RunError(
            f"cannot write {part}: {error.strerror or error}", "free some space or choose another folder"
        ) from error
    if expected is not None and held < expected:
        raise _Passing(f"it broke off after {held:,} of {expected:,} bytes", "try again")


def without_credentials(text: str) -> str:
    """Return text without what stands before the host in its URLs, which may be a password."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.hostname, parts.port


def _reason(error: Exception) -> str:
    """Return what happened to a connection, in a few words."""
    text = without_credentials(" ".join(str(error).split()))
    if "timed out" in text:
        return "the server stopped answering"
    if "IncompleteRead" in text or "Connection broken" in text:
        return "the connection broke off"
    for cause in ("Name or service not known", "Temporary failure in name resolution", "Connection refused"):
        if cause in text:
            return f"no connection ({cause.lower()})"
    return f"no connection ({text[:160] or type(error).__name__})"
