"""A local HTTP server whose every answer is scripted, and a card whose files it serves."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from mbgraph.data.card import Card, CardFile
from mbgraph.data.catalog import list_datasets, load_dataset
from mbgraph.data.download import download
from mbgraph.data.formats.npz import write_npz
from mbgraph.data.transfer import Policy, git_blob_id
from mbgraph.errors import DataError, UsageError


class Site:
    """Files by path, and for some paths the answers to give instead, one per request and then the file.

    An answer is ``callable(handler, content)``. ``seen`` lists each request's path and Range header.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.scripts: dict[str, list[Callable]] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.released = threading.Event()  # lets stalled answers end

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = handler.path
        self.seen.append((path, handler.headers.get("Range")))
        script = self.scripts.get(path)
        if script:
            script.pop(0)(handler, self.files.get(path, b""))
        elif path in self.files:
            serve(handler, self.files[path])
        else:
            self.status(404)(handler, b"")

    @staticmethod
    def status(code: int):
        return lambda handler, content: send(handler, code, b"no")

    @staticmethod
    def truncate(count: int):
        """Announce everything (or the range asked for), send so many bytes and hang up."""

        def answer(handler, content):
            start = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            handler.send_response(206 if start else 200)
            if start:
                handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            handler.send_header("Content-Length", str(len(content) - start))
            handler.end_headers()
            handler.wfile.write(content[start : start + count])

        return answer

    @staticmethod
    def say(body: bytes):
        """Send other bytes, whatever was asked for."""
        return lambda handler, content: send(handler, 200, body)

    @staticmethod
    def endless(handler, content: bytes) -> None:
        """Send without a length and without an end."""
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(100_000):
                handler.wfile.write(b"x" * 1000)
        except OSError:  # the client has had enough
            return

    @staticmethod
    def redirect(location: str, code: int = 302):
        return lambda handler, content: send(handler, code, b"", Location=location)

    def stall(self, count: int = 0):
        """Send so many bytes, then nothing, and do not hang up."""

        def answer(handler, content):
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content[:count])
            handler.wfile.flush()
            self.released.wait(20)

        return answer


def send(handler, code: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(code)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def serve(handler, content: bytes) -> None:
    """Answer as a good server does: all of it, or the range asked for."""
    asked = handler.headers.get("Range")
    if not asked:
        return send(handler, 200, content)
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    if start >= len(content):
        return send(handler, 416)
    return send(handler, 206, content[start:], Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}")


@contextmanager
def running() -> Iterator[Site]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            site.answer(self)
            self.close_connection = True

        def log_message(self, *_):
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site = Site(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def site(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with running() as site:
        yield site


@pytest.fixture
def made(tiny, tmp_path) -> dict[str, bytes]:
    """The files of `tiny` in the npz layout."""
    write_npz(tiny, tmp_path / "made")
    files = {file.name: file.read_bytes() for file in sorted((tmp_path / "made").iterdir())}
    shutil.rmtree(tmp_path / "made")
    return files


@pytest.fixture
def card(tiny, made, site) -> Card:
    """A card of format npz whose files the site serves under /npz/."""
    site.files = {f"/npz/{name}": content for name, content in made.items()}
    sources = [
        CardFile(part=name, path=f"npz/{name}", format="npz", git_blob=git_blob_id(content), size=len(content))
        for name, content in made.items()
    ]
    return Card(
        name="tiny",
        title="Tiny",
        description="x",
        citation="x",
        licence="none published",
        homepage="https://example.org",
        format="npz",
        users=6,
        items=5,
        behaviors=("view", "cart", "buy"),
        target="buy",
        protocol="loo",
        splits={"note": "by hand"},
        counts=tiny.counts,
        sources=tuple(sources),
        content_hash=tiny.content_hash(),
    )


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The folder of datasets, in a world where nothing else may change."""
    root = tmp_path / "data"
    for name in ("HOME", "USERPROFILE"):  # the second one on Windows
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("MBGRAPH_DATA", str(root))
    return root


@pytest.fixture
def policy() -> Policy:
    """Little patience."""
    return Policy(retries=3, backoff=0.01, connect_timeout=2, read_timeout=5, chunk=10)


@pytest.fixture
def get(site, root, policy):
    """Download a card's files from the site into `root`."""
    options = {"source": site.address + "/npz", "policy": policy}
    return lambda card, **more: download(card, root, **{**options, **more})


@pytest.fixture
def assert_nothing_to_see(root):
    """Check that there is no dataset by that name, and nothing but the hidden folder of the download."""

    def check() -> None:
        assert not (root / "tiny").exists()
        assert [entry["name"] for entry in list_datasets() if entry["path"]] == []
        assert {path.name for path in root.parent.iterdir()} <= {"data"}
        assert not root.exists() or {path.name for path in root.iterdir()} <= {".tiny.download"}
        with pytest.raises((UsageError, DataError), match="unknown dataset"):
            load_dataset("tiny")

    return check
