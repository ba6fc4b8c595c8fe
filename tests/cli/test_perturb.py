import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from mbgraph.cli.main import cli
from mbgraph.data.formats.npz import read_npz, write_npz
from mbgraph.data.perturb import perturb
from mbgraph.data.synthetic import demo


def run(*arguments):
    return CliRunner().invoke(cli, ["perturb", *map(str, arguments)])


def test_json_contract_and_files(tmp_path):
    out = tmp_path / "noisy"
    result = run("--add", "0.3", "--remove", "10%", "--behavior", "view", "--seed", 4, "--json", "-o", out)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["out"] == str(out)
    assert answer["added"] == {"view": 12_000}
    assert answer["removed"] == {"view": 4_000}
    written, wanted = read_npz(out), perturb(demo(), 0.3, 0.1, "view", rng=4)
    assert written.content_hash() == wanted.content_hash()
    assert json.loads((out / "manifest.json").read_text()) == wanted.metadata["perturbation"]
    assert list(written.users.ids) == list(demo().users.ids)


def test_table_says_what_happened(tmp_path):
    result = run("--add", "500", "-o", tmp_path / "noisy")
    assert result.exit_code == 0, result.output
    assert "40,500" in result.stdout
    assert "BAR after" in result.stdout
    assert "data: demo (synthetic)" in result.stderr


def test_default_folder_is_named_after_the_amount(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("--add", "0.3")
    assert result.exit_code == 0, result.output
    assert "writing to ./demo-add0.3" in result.stderr
    assert (tmp_path / "demo-add0.3" / "manifest.json").is_file()
    assert run("--add", "0.3").exit_code == 2


def test_reads_a_folder_and_overwrites_only_by_force(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    write_npz(demo(), source)
    assert run(source, "--remove", "5", "-o", out).exit_code == 0
    refused = run(source, "--remove", "6", "-o", out)
    assert refused.exit_code == 2
    assert "is not empty" in refused.stderr
    assert "--force" in refused.stderr
    assert run(source, "--remove", "6", "-o", out, "--force").exit_code == 0
    assert read_npz(out).counts["cart"] == 11_994
    itself = run(source, "--add", "6", "-o", source, "--force")
    assert itself.exit_code == 2
    assert "is the dataset itself" in itself.stderr
    (out / "thesis.tex").write_text("years of work")
    foreign = run(source, "--remove", "7", "-o", out, "--force")
    assert foreign.exit_code == 2
    assert "is no dataset folder (it holds thesis.tex)" in foreign.stderr
    assert (out / "thesis.tex").exists()


def test_never_overwrites_a_named_source(tmp_path, monkeypatch):
    monkeypatch.setenv("MBGRAPH_DATA", str(tmp_path))
    write_npz(demo().replace(name="shop"), tmp_path / "shop")
    result = run("shop", "--add", "6", "-o", tmp_path / "shop", "--force")
    assert result.exit_code == 2
    assert "is the dataset itself" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do"),
        (["--add", "much"], "'much' is neither a share such as 0.3 or 30% nor a number of edges"),
        (["--add", "0.3", "--behavior", "veiw"], "did you mean 'view'"),
        (["--add", "0.3", "--behavior", "buy"], "never perturbed"),
        (["--remove", "1.5"], "cannot remove 1.5 times the edges"),
        (["--add", "-1"], "add must be a share"),
        (["--add", "9" * 400], "add must be a share such as 0.3 or a number of edges, not 999"),
        (["--remove", "inf"], "remove must be a share"),
        (["--remove", "nan"], "remove must be a share"),
    ],
)
def test_errors_are_one_line_and_write_nothing(tmp_path, arguments, message):
    result = run(*arguments, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("mine")
    result = run("--add", "0.3", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "is a file" in result.stderr
    assert (tmp_path / "out").read_text() == "mine"


def test_never_imports_torch_or_dgl(tmp_path):
    code = (
        "import sys\n"
        "from mbgraph.cli.main import cli\n"
        "cli(sys.argv[1:], standalone_mode=False)\n"
        "heavy = {'torch', 'dgl', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    out = str(tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-c", code, "perturb", "--add", "0.3", "-o", out, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["added"] == {"view": 12_000, "cart": 3_600}


@pytest.mark.parametrize("name", ["../../../EVIL", "/tmp/EVIL", "a\0b", "x" * 300, "\ud800", "-o [/b]"])
def test_a_dataset_name_never_decides_where_files_go(tiny, name, tmp_path, monkeypatch):
    inside = tmp_path / "a" / "b" / "c" / "d"
    inside.mkdir(parents=True)
    write_npz(tiny.replace(name=name), inside / "source")
    monkeypatch.chdir(inside)
    result = run("source", "--add", "1")
    assert result.exit_code == 0, result.output
    made = {path for path in tmp_path.rglob("manifest.json")}
    assert len(made) == 1
    assert made.pop().parent.parent == inside
