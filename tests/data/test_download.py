"""What becomes of files that have arrived, or are brought along."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import requests

from mbgraph.data.card import CardFile
from mbgraph.data.catalog import find_dataset, load_dataset
from mbgraph.data.download import check_against, download
from mbgraph.data.formats.npz import read_npz, write_npz
from mbgraph.data.interactions import Pairs
from mbgraph.errors import DataError, RunError, UsageError


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def cells_of(pairs: Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))


def test_files_become_a_dataset(card, root, site, get, tiny):
    steps = []
    assert get(card, progress=lambda *step: steps.append(step)) == root / "tiny"
    ds = load_dataset("tiny")
    assert ds.content_hash() == tiny.content_hash()
    assert ds.users[:].tolist() == tiny.users[:].tolist()
    assert ds.edges["view"].time.tolist() == tiny.edges["view"].time.tolist()
    told = ds.metadata["download"]
    assert (told["card"], told["protocol"], told["from"]) == ("tiny", "loo", site.address + "/npz")
    assert told["files"] == {source.name: {"git_blob": source.git_blob} for source in card.sources}
    assert {path.name for path in root.iterdir()} == {"tiny"}
    assert [path for path, _ in site.seen] == [f"/npz/{source.name}" for source in card.sources]
    verified = [(name, done, total) for name, done, total, note in steps if note == "verified"]
    assert verified == [(source.name, source.size, source.size) for source in card.sources]
    assert [note for *_, note in steps if note][-2:] == ["reading", "writing"]


def test_no_connection_names_the_files_and_where_to_put_them(card, root, policy, assert_nothing_to_see):
    published = card.replace(
        sources=tuple(source.replace(repository="some/body", commit="0" * 40) for source in card.sources)
    )

    class Offline:
        headers: ClassVar[dict[str, str]] = {}

        def get(self, url, **_):
            assert url.startswith("https://raw.githubusercontent.com/some/body/" + "0" * 40 + "/npz/")
            raise requests.exceptions.ConnectionError("Name or service not known")

    with pytest.raises(RunError, match="no connection") as caught:
        download(published, root, policy=policy, session=Offline())
    message = str(caught.value)
    assert "\n" not in message
    for source in card.sources:
        assert source.name in message
    assert "npz of some/body at 0000000" in message
    assert "mbgraph data download tiny --from DIR" in message
    assert_nothing_to_see()


def test_a_card_that_is_not_on_disk_says_how_to_get_it(root):
    with pytest.raises(UsageError, match="dataset 'taobao' is not on disk; see mbgraph data show taobao, get it with"):
        find_dataset("taobao")
    with pytest.raises(UsageError, match="mbgraph data download beibei"):
        load_dataset("beibei")
    with pytest.raises(UsageError, match=r"unknown dataset 'taobo'; did you mean 'taobao'\?"):
        load_dataset("taobo")


@pytest.mark.parametrize("flat", [True, False])
def test_a_local_copy(card, root, site, made, tmp_path, flat):
    copy = tmp_path / "copy"
    folder = copy if flat else copy / "npz"
    folder.mkdir(parents=True)
    for name, content in made.items():
        (folder / name).write_bytes(content)
    before = listing(copy)
    download(card, root, source=copy)
    assert load_dataset("tiny").content_hash() == card.content_hash
    assert site.seen == []
    assert listing(copy) == before
    assert listing(root) == {"tiny", *(f"tiny/{name}" for name in made)}


def test_a_local_copy_that_is_wrong(card, root, made, tmp_path, assert_nothing_to_see):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in list(made.items())[:-2]:
        (copy / name).write_bytes(content)
    first, second = list(made)[-2:]
    with pytest.raises(UsageError, match=rf"copy lacks {first}, {second}; put .*buy.npz.* of tiny there"):
        download(card, root, source=copy)
    (copy / first).write_bytes(made[first])
    (copy / second).write_bytes(made[second][:-1] + b"?")
    with pytest.raises(DataError, match=rf"{second} is not the {second} of the card: its git blob is"):
        download(card, root, source=copy)
    shutil.rmtree(copy)
    assert_nothing_to_see()
    assert not (root / ".tiny.download" / second).exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("file:///tmp", "cannot download from 'file:///tmp'; give an http or https URL"),
        ("ftp://example.org/x", "cannot download from 'ftp://example.org/x'"),
        ("nowhere", "nowhere is no folder; give a folder"),
        ("http://", "cannot download from 'http://'"),
    ],
)
def test_places_that_are_none(card, root, source, message, assert_nothing_to_see):
    with pytest.raises(UsageError, match=message):
        download(card, root, source=source)
    assert_nothing_to_see()


def test_what_is_there_is_kept_without_force(card, root, site, get, small):
    write_npz(small, root / "tiny")
    with pytest.raises(UsageError, match="tiny already exists and is not empty; .*--force"):
        get(card)
    assert site.seen == []
    site.files["/npz/view.npz"] = b"short"
    with pytest.raises(DataError, match="has 5 bytes, the card says"):
        get(card, force=True)
    assert load_dataset("tiny").content_hash() == small.content_hash()


def test_force_replaces_a_dataset_and_nothing_else(card, root, get, small, tiny):
    write_npz(small, root / "tiny")
    get(card, force=True)
    assert load_dataset("tiny").content_hash() == tiny.content_hash()
    (root / "tiny" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="is no dataset folder"):
        get(card, force=True)
    assert (root / "tiny" / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize("kind", ["folder", "part", "file"])
def test_planted_links_lead_nowhere(card, root, get, tmp_path, kind):
    """Whoever can write into the folder of datasets makes us write nowhere else."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"mine")
    scratch = root / ".tiny.download"
    root.mkdir()
    if kind == "folder":
        scratch.symlink_to(outside)
        with pytest.raises(UsageError, match=r"\.tiny\.download is no folder; remove it"):
            get(card)
    else:
        scratch.mkdir()
        (scratch / ("view.npz.part" if kind == "part" else "view.npz")).symlink_to(outside / "victim")
        get(card)
    assert listing(outside) == {"victim"}
    assert (outside / "victim").read_bytes() == b"mine"


def test_a_full_disk_is_told_before_anything_is_asked_for(card, root, site, get, monkeypatch):
    usage = shutil.disk_usage(root.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(RunError, match="data has 1 MB left, tiny needs 67 MB; free some space"):
        get(card)
    assert site.seen == []


def test_verified_files_that_read_wrong_are_no_dataset(card, get, assert_nothing_to_see):
    with pytest.raises(DataError, match="not the tiny of its card: view pairs are 9, not 8; see mbgraph data show"):
        get(card.replace(counts={**card.counts, "view": 8}))
    with pytest.raises(DataError, match="the counts agree, the pairs do not"):
        get(card.replace(content_hash="0" * 64))
    assert_nothing_to_see()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"users": 7}, "users are 6, not 7"),
        ({"items": 4}, "items are 5, not 4"),
        ({"target": "cart"}, "target are buy, not cart"),
        ({"behaviors": ("view", "buy")}, "behaviors are"),
        ({"counts": {"view": 9, "cart": 4, "buy": 5, "valid": 2}}, "test pairs are 4, not 0"),
        ({"counts": {"view": 9, "cart": 4, "buy": 5, "valid": 3, "test": 4}}, "valid pairs are 2, not 3"),
    ],
)
def test_a_card_is_held_against_a_dataset(card, tiny, changes, message):
    check_against(card, tiny)
    with pytest.raises(DataError, match=message):
        check_against(card.replace(**changes), tiny)


def test_parts_of_several_formats_make_one_dataset(card, root, tiny, tmp_path, monkeypatch):
    """As with Beibei each part is a file of its own format; as with tmall10k a block of the ids is cut out."""
    copy = tmp_path / "copy"
    copy.mkdir()
    sources = []
    for number, part in enumerate((*card.counts, "count")):
        content = b'{"user": 4, "item": 3}' if part == "count" else part.encode()
        (copy / f"{part}.txt").write_bytes(content)
        kind = "pairs" if number % 2 else "adjacency"
        sources.append(
            CardFile(part=part, path=f"x/{part}.txt", format=kind, sha256=hashlib.sha256(content).hexdigest())
        )
    asked = []

    def read_part(path, format):
        part = path.read_text()
        asked.append((part, format))
        pairs = tiny.edges.get(part) or tiny.splits[part]
        again = [*range(len(pairs)), 0]  # published files do repeat a pair now and then
        return Pairs(pairs.user[again], pairs.item[again])

    monkeypatch.setattr("mbgraph.data.formats.read_part", read_part, raising=False)
    cells = {
        part: [
            cell for cell in zip(pairs.user.tolist(), pairs.item.tolist(), strict=True) if cell[0] < 4 and cell[1] < 3
        ]
        for part, pairs in {**tiny.edges, **tiny.splits}.items()
    }
    counts = {part: len(kept) for part, kept in cells.items()}
    block = card.replace(
        format="pairs", sources=tuple(sources), users=4, items=3, crop=(4, 3), counts=counts, content_hash=None
    )
    download(block, root, source=copy)
    ds = read_npz(root / "tiny")
    assert (ds.num_users, ds.num_items, ds.counts) == (4, 3, counts)
    for part, pairs in {**ds.edges, **ds.splits}.items():
        assert cells_of(pairs) == cells[part]  # in their old order
    assert asked == [(source.part, source.format) for source in sources[:-1]]
    other = b'{"user": 4, "item": 4}'
    (copy / "count.txt").write_bytes(other)
    wrong = sources[-1].replace(sha256=hashlib.sha256(other).hexdigest())
    with pytest.raises(DataError, match=r"count.txt of tiny says .*, the card says 4 users and 3 items"):
        download(block.replace(sources=(*sources[:-1], wrong)), root, source=copy, force=True)
    assert read_npz(root / "tiny").counts == counts


def test_by_hand(card, root, tiny, tmp_path):
    """Without hashes nothing is downloaded; what the user brings must still be what the card says."""
    by_hand = card.replace(sources=(), by_hand="Ask the authors.")
    message = r"tiny cannot be downloaded automatically; Ask the authors\. Then: mbgraph data download tiny --from DIR"
    with pytest.raises(UsageError, match=message):
        download(by_hand, root)
    with pytest.raises(UsageError, match="cannot be downloaded automatically"):
        download(by_hand, root, source="https://example.org")
    write_npz(tiny, tmp_path / "mine")
    with pytest.raises(DataError, match="users are 6, not 9"):
        download(by_hand.replace(users=9), root, source=tmp_path / "mine")
    assert not (root / "tiny").exists()
    download(by_hand, root, source=tmp_path / "mine")
    assert load_dataset("tiny").content_hash() == tiny.content_hash()


def test_by_hand_in_another_format(card, root, tiny, tmp_path, monkeypatch):
    asked = []

    def read(path, format=None, **options):
        asked.append((path, format, options))
        return tiny.replace(name="other")

    monkeypatch.setattr("mbgraph.data.formats.read", read, raising=False)
    (tmp_path / "mine").mkdir()
    download(card.replace(sources=(), format="sslrec"), root, source=tmp_path / "mine")
    assert asked == [(tmp_path / "mine", "sslrec", {"target": "buy"})]
    assert load_dataset("tiny").name == "tiny"


def test_event_logs_are_imported(root, tmp_path):
    with pytest.raises(
        UsageError, match=r"retailrocket cannot be downloaded automatically; .*mbgraph data import"
    ) as no:
        download("retailrocket", root, source=tmp_path)
    assert "--from DIR" not in str(no.value)


def test_a_file_without_a_hash_is_not_downloaded(card, site, get):
    with pytest.raises(UsageError, match="cannot be downloaded automatically"):
        get(card.replace(sources=(card.sources[0].replace(git_blob=None), *card.sources[1:])))
    assert site.seen == []
