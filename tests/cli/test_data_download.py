import functools
import http.server
import json
import threading

import pytest
from click.testing import CliRunner
from rich.console import Console

from mbgraph.cli.data.download import TransferProgress
from mbgraph.cli.main import cli
from mbgraph.data import card_reader, cards
from mbgraph.data.catalog import load_dataset
from mbgraph.data.formats.npz import write_npz
from mbgraph.data.transfer import git_blob_id


def run(*arguments):
    return CliRunner().invoke(cli, ["data", *map(str, arguments)])


@pytest.fixture
def shop(tiny, tmp_path, monkeypatch, data_home):
    """A card of `tiny` beside one without files; returns the folder with the files."""
    folder = tmp_path / "published" / "shop"
    write_npz(tiny.replace(name="shop"), folder)
    files = ",\n".join(
        f'  {{ part = "{file.stem}", path = "{file.name}", git_blob = "{git_blob_id(file.read_bytes())}" }}'
        for file in sorted(folder.iterdir())
    )
    text = f"""
name = "shop"
title = "A shop [bold]with brackets[/bold]"
description = "Six users."
citation = "Nobody 2020"
licence = "none published"
homepage = "https://example.org"
format = "npz"
users = 6
items = 5
behaviors = ["view", "cart", "buy"]
target = "buy"
protocol = "loo"
splits = {{ note = "cut by hand" }}
counts = {{ view = 9, cart = 4, buy = 5, valid = 2, test = 4 }}
bar = {{ view = 0.5, cart = 0.25 }}
aliases = {{ view = ["pv", "click"] }}
[[sources]]
repository = "some/body"
commit = "{"0" * 40}"
files = [
{files}
]
"""
    known = tmp_path / "cards"
    known.mkdir()
    (known / "shop.toml").write_text(text)
    by_hand = text[: text.index("[[sources]]")].replace('"shop"', '"attic"', 1)
    (known / "attic.toml").write_text(by_hand.replace("title", 'by_hand = "Ask Nobody."\ntitle', 1))
    monkeypatch.setattr(cards, "shipped", lambda name: known)
    assert card_reader.load_card(known / "shop.toml").is_downloadable
    return folder


def test_ls_lists_cards_with_their_status(shop, data_home, small):
    write_npz(small, data_home / "mine")
    entries = {entry["name"]: entry for entry in json.loads(run("ls", "--json").stdout)}
    assert {name: entry["status"] for name, entry in entries.items()} == {
        "demo": "embedded", "mine": "on disk", "attic": "by hand", "shop": "download",
    }  # fmt: skip
    assert entries["shop"]["counts"] == {"view": 9, "cart": 4, "buy": 5, "valid": 2, "test": 4}
    assert (entries["shop"]["splits"], entries["shop"]["path"]) == (["valid", "test"], None)
    shown = run("ls").stdout
    assert "by hand" in shown
    assert "view 9, cart 4" in shown
    assert run("download", "shop", "--from", shop).exit_code == 0
    entries = json.loads(run("ls", "--json").stdout)
    assert [entry["status"] for entry in entries if entry["name"] == "shop"] == ["on disk"]


def test_download_from_a_folder(shop, data_home, tiny):
    result = run("download", "shop", "--from", shop, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "name": "shop",
        "path": str(data_home / "shop"),
        "users": 6,
        "items": 5,
        "behaviors": ["view", "cart", "buy"],
        "target": "buy",
        "splits": ["valid", "test"],
        "counts": {"view": 9, "cart": 4, "buy": 5, "valid": 2, "test": 4},
    }
    assert load_dataset("shop").content_hash() == tiny.content_hash()
    again = run("download", "shop", "--from", shop)
    assert again.exit_code == 2
    assert again.stderr.startswith("error: ")
    assert "already exists and is not empty" in again.stderr
    forced = run("download", "shop", "--from", shop, "--force")
    assert forced.exit_code == 0
    assert "view.npz: verified (0.0 MB)" in forced.stderr
    assert "licence: none published" in forced.stderr
    assert f"wrote {data_home / 'shop'}" in forced.stderr
    assert forced.stdout == ""


def test_download_over_http(shop, tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(shop)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        result = run("download", "shop", "--from", address, "--to", tmp_path / "there")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert result.exit_code == 0, result.output
    assert (tmp_path / "there" / "shop" / "meta.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("shp",), 2, "error: unknown dataset card 'shp'; did you mean 'shop'?"),
        (
            ("attic",),
            2,
            "error: attic cannot be downloaded automatically; Ask Nobody. Then: mbgraph data download attic",
        ),
        (("shop", "--from", "file:///x"), 2, "error: cannot download from 'file:///x'; give an http or https URL"),
        (("shop", "--from", "."), 2, "error: . lacks buy.npz, cart.npz"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(shop, data_home, tmp_path, monkeypatch, arguments, code, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    result = run("download", *arguments)
    assert result.exit_code == code
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(message)
    assert [path for path in data_home.iterdir() if not path.name.startswith(".")] == []


def test_show(shop):
    result = run("show", "shop")
    assert result.exit_code == 0, result.output
    for text in (
        "A shop [bold]with brackets[/bold]",
        "licence: none published",
        "get it: mbgraph data download shop",
        "note: cut by hand",
        "pv, click",
        "0.2500",
        f"git blob {git_blob_id((shop / 'view.npz').read_bytes())}",
    ):
        assert text in result.stdout
    assert "get it: Ask Nobody." in run("show", "attic").stdout
    shown = json.loads(run("show", "shop", "--json").stdout)
    assert (shown["downloadable"], shown["bar"], shown["dt"]) == (True, {"view": 0.5, "cart": 0.25}, None)
    names = {source["name"]: source["url"] for source in shown["sources"]}
    assert names["buy.npz"] == f"https://raw.githubusercontent.com/some/body/{'0' * 40}/buy.npz"
    wrong = run("show", "shp")
    assert (wrong.exit_code, wrong.stderr) == (2, "error: unknown dataset card 'shp'; did you mean 'shop'?\n")


def test_the_shipped_cards_are_shown(data_home):
    for name in cards.cards():
        result = run("show", name)
        assert result.exit_code == 0, result.output
        assert "licence: " in result.stdout


def test_where(data_home, small):
    write_npz(small, data_home / "mine")
    cache = data_home.parent / "home" / ".cache" / "mbgraph"
    result = run("where")
    assert result.stdout.splitlines() == [str(data_home), str(cache)]
    assert result.stderr == f"{cache} does not exist yet\n"
    assert json.loads(run("where", "--json").stdout)["folders"] == [
        {"path": str(data_home), "exists": True},
        {"path": str(cache), "exists": False},
    ]
    assert run("where", "mine").stdout == f"{data_home / 'mine'}\n"
    assert json.loads(run("where", "mine", "--json").stdout) == {"name": "mine", "path": str(data_home / "mine")}
    assert run("where", "demo").stdout == ""
    assert json.loads(run("where", "demo", "--json").stdout) == {"name": "demo", "path": None}
    missing = run("where", "taobao")
    assert missing.exit_code == 2
    assert "mbgraph data download taobao" in missing.stderr


def test_a_terminal_gets_bars_and_a_pipe_gets_lines():
    for is_terminal in (True, False):
        console = Console(force_terminal=is_terminal, width=120, record=True, file=None, quiet=False, stderr=True)
        with TransferProgress(console) as progress:
            progress("view.txt", 1_000_000, 4_000_000, "")
            progress("view.txt", 4_000_000, 4_000_000, "verified")
            progress("shop", 0, None, "reading")
        text = console.export_text()
        assert "view.txt: verified (4.0 MB)" in text
        assert "shop: reading" in text
        assert ("4.0/4.0 MB" in text) == is_terminal
