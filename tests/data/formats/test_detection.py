import subprocess
import sys

import pytest

from mbgraph.data.catalog import find_dataset, load_dataset
from mbgraph.data.formats import FORMATS, WRITERS, detect, write
from mbgraph.data.formats.detection import LOOKED_FOR
from mbgraph.errors import DataError, UsageError


def files(folder, **texts):
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_txt", ".txt")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


def test_every_format_says_what_it_is_told_by():
    assert tuple(LOOKED_FOR) == FORMATS


@pytest.mark.parametrize("format", WRITERS)
def test_folders_that_mbgraph_writes(tmp_path, tiny, format):
    write(tiny, tmp_path / "shop", format)
    assert detect(tmp_path / "shop") == format
    assert find_dataset(tmp_path / "shop") == tmp_path / "shop"
    ds = load_dataset(tmp_path / "shop")
    assert (ds.content_hash(), ds.name) == (tiny.content_hash(), "tiny")


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("log.csv", "user,item,behavior,time\n1,2,view,3\n", "events"),
        ("log.bin", "user;item;behavior\n1;2;view\n", "events"),
        ("log.csv", "1,2,view,3\n", None),
        ("log.csv", "user,item\n1,2\n", None),
        ("taobao.txt", "1\t2\tbuy\t100\n", "missl"),
        ("taobao.txt", "1\t2\tbuy\t100.5\n", "missl"),
        ("taobao.txt", "1\t2\tbuy\tx\n", None),
        ("shop.inter", "user_id:token\titem_id:token\n1\t2\n", "recbole"),
        ("shop.csv", "\ufeffuser_id:token\titem_id:token\n1\t2\n", "recbole"),
        ("shop.inter", "user_id\titem_id\tx\n1\t2\t3\n", "events"),
        ("view.txt", "1 2\n", None),
        ("empty.txt", "", None),
        ("x.bin", "a\0b,c,d\n", None),
    ],
)
def test_files_by_content(tmp_path, name, text, format):
    (tmp_path / name).write_text(text)
    if format is None:
        with pytest.raises(DataError, match=r"is of no known format; looked for meta.json \(npz\), count.txt with"):
            detect(tmp_path / name)
    else:
        assert detect(tmp_path / name) == format


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00a,b,c\n")
    with pytest.raises(DataError, match="is of no known format"):
        detect(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"PAR1 and more")
    assert detect(tmp_path / "x") == "events"


@pytest.mark.parametrize("begin", ["", "\n", "\ufeff"])
def test_a_first_user_of_very_many_items_is_a_list_of_items(tmp_path, begin):
    many = begin + " ".join(map(str, range(20_000))) + "\n"
    folder = files(tmp_path / "a", train_txt=many, test_txt="0 20000\n", cart_txt=many)
    assert detect(folder) == "adjacency"
    assert len(load_dataset(folder).edges["cart"]) == 19_999
    assert detect(files(tmp_path / "b", buy_train_txt=many, cart_train_txt=many)) == "by-part"


def test_content_decides_where_names_are_alike(tmp_path):
    numbers = files(tmp_path / "a", train_txt="0 1 2\n", test_txt="0 3\n")
    assert detect(numbers) == "adjacency"
    assert detect(files(tmp_path / "b", count_txt="{}", buy_dict_txt="{}")) == "dicts"
    assert detect(files(tmp_path / "c", count_txt="{}", buy_dict_txt="{}", buy_txt="1 2\n")) == "pairs"
    text = files(tmp_path / "d", train_txt="in words\n", test_txt="in words\n")
    with pytest.raises(DataError, match="is of no known format"):
        detect(text)
    (text / "buy.train.txt").write_text("uid\tsid\n1\t2\n")
    assert detect(text) == "ehcf"
    assert detect(files(tmp_path / "e", buy__train_txt="0\t1\n")) == "mbcgcn"
    with pytest.raises(DataError, match="is of no known format"):  # datasets, not behaviors
        detect(files(tmp_path / "f", taobao__train_txt="0\t1\n", beibei__train_txt="0\t1\n"))


def test_two_formats_in_one_folder_are_asked_about(tmp_path):
    both = files(tmp_path / "both", train_txt="0 1\n", test_txt="0 2\n", trn_buy="", tst_int="")
    with pytest.raises(DataError, match=r"may be adjacency or csr-pickle; say which with format= \(--format\)"):
        detect(both)
    with pytest.raises(DataError, match="may be adjacency or csr-pickle"):
        load_dataset(both)


def test_paths_that_are_none(tmp_path):
    with pytest.raises(DataError, match="there is no .*none; correct the path"):
        detect(tmp_path / "none")
    for odd in ("x" * 5000, "a\0b", "~nobody-at-all/x"):
        with pytest.raises(UsageError, match="cannot use the path"):
            detect(odd)


def test_event_logs_are_imported_first(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,behavior\n1,2,buy\n")
    with pytest.raises(DataError, match="log.csv is an event log, no dataset; import it with: mbgraph data import"):
        load_dataset(tmp_path / "log.csv")


def test_the_npz_path_stays_light(tmp_path, tiny):
    """The native format needs neither pandas nor any other reader."""
    write(tiny, tmp_path / "shop", "npz")
    code = (
        "import sys\n"
        "from mbgraph.data.catalog import load_dataset\n"
        f"load_dataset({str(tmp_path / 'shop')!r})\n"
        "heavy = {'pandas', 'pyarrow', 'scipy', 'pickle_', 'torch'} | {f'mbgraph.data.formats.{name}' for name in"
        " ('detection', 'pairs', 'recbole', 'pickles', 'text')}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules)) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() in ("", "[]"), done.stderr
