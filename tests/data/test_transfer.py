"""Downloads from a server that breaks off, lies, stalls and redirects."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.data import download as module
from mbgraph.data.card import CardFile
from mbgraph.data.download import download
from mbgraph.data.transfer import check_file, git_blob_id
from mbgraph.errors import DataError, RunError, UsageError


def test_a_mirror_may_have_the_layout_of_the_repository(card, root, site, policy):
    download(card, root, source=site.address, policy=policy)  # /view.npz is not there, /npz/view.npz is
    assert (root / "tiny" / "meta.json").is_file()


def test_a_broken_transfer_goes_on_where_it_stopped(card, site, made, get):
    name, size = "view.npz", len(made["view.npz"])
    site.scripts[f"/npz/{name}"] = [site.truncate(100), site.truncate(50)]
    get(card)
    assert [asked for path, asked in site.seen if path.endswith(name)] == [None, "bytes=100-", "bytes=150-"]
    assert size > 150


def test_the_next_call_goes_on_too(card, root, site, get, assert_nothing_to_see):
    name = card.sources[-1].name
    site.scripts[f"/npz/{name}"] = [site.truncate(60), *[site.truncate(0)] * 3]
    with pytest.raises(
        RunError, match=r"cannot download http://127.+; get view.npz \(.+put them into a folder DIR and run"
    ):
        get(card)
    assert_nothing_to_see()
    part = root / ".tiny.download" / f"{name}.part"
    assert part.stat().st_size == 60
    site.seen.clear()
    get(card)
    assert site.seen == [(f"/npz/{name}", "bytes=60-")]  # the other files were there, and right
    assert {path.name for path in root.iterdir()} == {"tiny"}


def test_a_server_that_ignores_ranges_sends_everything_again(card, site, made, get):
    path = "/npz/view.npz"
    site.scripts[path] = [site.truncate(100), site.say(made["view.npz"])]
    get(card)
    assert [asked for seen, asked in site.seen if seen == path] == [None, "bytes=100-"]


def test_a_part_of_something_else_is_thrown_away(card, root, site, get):
    scratch = root / ".tiny.download"
    scratch.mkdir(parents=True)
    (scratch / "view.npz.part").write_bytes(b"nonsense")
    get(card)
    assert [asked for path, asked in site.seen if path == "/npz/view.npz"] == ["bytes=8-", None]


def test_a_part_that_is_too_long_is_thrown_away(card, root, get):
    scratch = root / ".tiny.download"
    scratch.mkdir(parents=True)
    (scratch / "view.npz.part").write_bytes(b"x" * 10_000)
    get(card)
    assert (root / "tiny" / "view.npz").is_file()


def test_a_range_that_cannot_be_satisfied_starts_again(card, root, site, get):
    scratch = root / ".tiny.download"
    scratch.mkdir(parents=True)
    (scratch / "view.npz.part").write_bytes(b"PK")
    site.scripts["/npz/view.npz"] = [site.status(416)]
    get(card)
    assert [asked for path, asked in site.seen if path == "/npz/view.npz"] == ["bytes=2-", None]


@pytest.mark.parametrize("same_length", [True, False])
def test_corrupt_files_are_never_read(card, root, site, made, same_length, monkeypatch, get, assert_nothing_to_see):
    content = made["view.npz"]
    wrong = bytes([content[0] ^ 1]) + content[1:] if same_length else content[:-1]
    site.files["/npz/view.npz"] = wrong
    monkeypatch.setattr(module, "_read_source", None)
    message = "is not the view.npz of the card: its git blob is " if same_length else "has 610 bytes, the card says 611"
    with pytest.raises((DataError, RunError), match=message):
        get(card)
    assert_nothing_to_see()
    if same_length:
        assert len([path for path, _ in site.seen if path == "/npz/view.npz"]) == 2
        assert not list((root / ".tiny.download").glob("view.npz*"))


def test_one_corrupt_answer_is_asked_for_again(card, root, site, made, get):
    site.scripts["/npz/view.npz"] = [site.say(bytes(len(made["view.npz"])))]
    get(card)
    assert (root / "tiny" / "view.npz").is_file()


def test_more_than_the_card_says_is_not_taken(card, root, site, get, assert_nothing_to_see):
    site.scripts["/npz/view.npz"] = [site.endless]
    with pytest.raises(DataError, match="sends more than .* bytes; try another place"):
        get(card)
    assert sum(path.stat().st_size for path in (root / ".tiny.download").iterdir()) < 100_000
    site.scripts["/npz/view.npz"] = [site.say(b"x" * 99_999)]
    with pytest.raises(DataError, match="has 99,999 bytes, the card says 611"):
        get(card)
    assert_nothing_to_see()


def test_a_file_of_unknown_size(card, root, site, get, policy, assert_nothing_to_see):
    card = card.replace(sources=tuple(source.replace(size=None) for source in card.sources))
    site.scripts["/npz/view.npz"] = [site.endless]
    with pytest.raises(DataError, match="sends more than 50,000 bytes"):
        get(card, policy=replace(policy, max_bytes=50_000))
    assert_nothing_to_see()
    site.seen.clear()
    site.scripts["/npz/view.npz"] = [site.truncate(100), site.truncate(50)]
    get(card)
    assert [asked for path, asked in site.seen if path == "/npz/view.npz"] == [None, "bytes=100-", "bytes=150-"]


def test_a_stalled_server_is_given_up_and_asked_again(card, root, site, get, policy):
    impatient = replace(policy, read_timeout=0.3)
    site.scripts["/npz/view.npz"] = [site.stall(80), site.stall()]
    notes = []
    get(card, policy=impatient, progress=lambda *step: notes.append(step[-1]))
    asked = [asked for path, asked in site.seen if path == "/npz/view.npz"]
    assert asked == [None, "bytes=80-", None] or asked == [None, "bytes=80-", "bytes=80-"]
    assert any("stopped answering" in note for note in notes)
    assert (root / "tiny" / "view.npz").is_file()


def test_a_server_that_stalls_for_good_is_an_error(card, site, get, assert_nothing_to_see, policy):
    impatient = replace(policy, read_timeout=0.3)
    site.scripts["/npz/view.npz"] = [site.stall()] * 4
    with pytest.raises(RunError, match="the server stopped answering; get "):
        get(card, policy=impatient)
    assert_nothing_to_see()


@pytest.mark.parametrize("code", [404, 410, 403, 401, 400])
def test_a_refusal_is_final(card, site, code, get, assert_nothing_to_see):
    for path in ("/npz/view.npz", "/npz/npz/view.npz"):
        site.scripts[path] = [site.status(code)] * 9
    with pytest.raises(RunError, match=rf"view.npz: the server answers {code}.*; get .*view.npz.* --from DIR"):
        get(card)
    assert all(len(script) >= 8 for script in site.scripts.values())
    assert_nothing_to_see()


def test_a_server_in_trouble_is_asked_again(card, root, site, get, assert_nothing_to_see):
    site.scripts["/npz/view.npz"] = [site.status(500), site.status(503), site.status(429)]
    get(card)
    assert len([path for path, _ in site.seen if path == "/npz/view.npz"]) == 4
    shutil.rmtree(root / "tiny")
    site.scripts["/npz/view.npz"] = [site.status(500)] * 4
    with pytest.raises(RunError, match="the server answers 500"):
        get(card)
    assert_nothing_to_see()


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(card, site, made, code, get):
    site.files["/elsewhere"] = made["view.npz"]
    site.scripts["/npz/view.npz"] = [site.redirect("/elsewhere", code)]
    get(card)
    assert ("/elsewhere", None) in site.seen


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "FILE:/etc/passwd"])
def test_redirects_never_leave_http(card, site, place, get, assert_nothing_to_see):
    site.scripts["/npz/view.npz"] = [site.redirect(place)]
    with pytest.raises(UsageError, match="only http and https are followed"):
        get(card)
    assert_nothing_to_see()


def test_endless_redirects_end(card, site, get):
    site.scripts["/npz/view.npz"] = [site.redirect("/npz/view.npz")] * 99
    with pytest.raises(RunError, match="redirects more than 5 times"):
        get(card)
    assert len(site.seen) < 20


def test_a_proxy_of_the_environment_is_used(card, root, site, monkeypatch, policy):
    site.files = {f"http://far.example{path}": content for path, content in site.files.items()}
    monkeypatch.setenv("http_proxy", site.address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    download(card, root, source="http://far.example/npz", policy=policy)
    assert site.seen[0][0].startswith("http://far.example/npz/")


@given(content=st.binary(max_size=200))
def test_blob_ids_against_the_formula(tmp_path_factory, content):
    expected = hashlib.sha1(b"blob " + str(len(content)).encode() + b"\x00" + content).hexdigest()
    assert git_blob_id(content) == expected
    path = tmp_path_factory.mktemp("blob") / "file"
    path.write_bytes(content)
    assert check_file(path, CardFile(part="view", path="file", format="pairs", git_blob=expected)) is None
    path.write_bytes(content + b"x")
    assert "its git blob is" in check_file(path, CardFile(part="view", path="file", format="pairs", git_blob=expected))
    assert "bytes instead of" in check_file(
        path, CardFile(part="view", path="file", format="pairs", git_blob=expected, size=len(content))
    )


def test_known_blob_ids():
    assert git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_blob_id(b"hello world\n") == "3b18e512dba79e4c8300dd08aeb37f8e728b8dad"


def test_both_hashes_must_be_right(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    blob, sha = git_blob_id(b"abc"), hashlib.sha256(b"abc").hexdigest()
    assert check_file(path, CardFile(part="view", path="file", format="pairs", git_blob=blob, sha256=sha)) is None
    assert "its SHA-256 is" in check_file(
        path, CardFile(part="view", path="file", format="pairs", git_blob=blob, sha256="0" * 64)
    )
    assert "no hash" in check_file(path, CardFile(part="view", path="file", format="pairs"))


def test_passwords_reach_one_host_and_nothing_else(card, root, site, get, policy):
    asked = []
    good = site.answer

    def answer(handler):
        asked.append(handler.headers.get("Authorization"))
        good(handler)

    site.answer = answer
    secret = site.address.replace("http://", "http://ann:s3cr%40t@") + "/npz"
    place = get(card, source=secret)
    assert set(asked) == {"Basic YW5uOnMzY3JAdA=="}
    for file in place.iterdir():
        assert b"s3cr" not in file.read_bytes()
    assert json.loads((place / "meta.json").read_text())["metadata"]["download"]["from"] == site.address + "/npz"
    for wrong in (secret + "/none", secret.replace(site.address[7:], "127.0.0.1:1"), secret.replace("http", "ftp")):
        with pytest.raises((RunError, UsageError)) as caught:
            get(card, source=wrong, force=True)
        assert "s3cr" not in str(caught.value)
        assert "ann:" not in str(caught.value)


def test_a_redirect_to_another_host_takes_no_password_along(card, site, get):
    asked = {"127.0.0.1": set(), "localhost": set()}
    good = site.answer

    def answer(handler):
        host = handler.headers["Host"].partition(":")[0]
        asked[host].add(handler.headers.get("Authorization"))
        if host == "localhost":
            good(handler)
            return
        handler.send_response(302)
        handler.send_header("Location", site.address.replace("127.0.0.1", "localhost") + handler.path)
        handler.end_headers()

    site.answer = answer
    get(card, source=site.address.replace("http://", "http://ann:s3cret@") + "/npz")
    assert asked == {"127.0.0.1": {"Basic YW5uOnMzY3JldA=="}, "localhost": {None}}


@pytest.mark.parametrize("source", ["http://[::1", "http://a:99999999/x", "https://", "http://ann:s3cret@"])
def test_urls_that_are_none(card, get, source):
    with pytest.raises(UsageError, match="cannot download from") as caught:
        get(card, source=source)
    assert "s3cret" not in str(caught.value)
