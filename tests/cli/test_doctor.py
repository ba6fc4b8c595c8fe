import json
from importlib import metadata

import pytest
from click.testing import CliRunner

from mbgraph import doctor
from mbgraph._dgl import REMEDY, graph_carrier
from mbgraph.cli.main import cli


def run(*arguments):
    return CliRunner().invoke(cli, ["doctor", *arguments])


def test_a_healthy_machine(data_home):
    result = run()
    assert result.exit_code == 0, result.output
    for words in (
        "torch",
        "numba",
        "threads",
        "--device auto means",
        "neighbour sum equals",
        f"carries the graph: {graph_carrier().reason}",
        str(data_home),
        "all is well",
    ):
        assert words in result.stdout
    assert result.stderr == ""


def test_json(data_home):
    report = json.loads(run("--json").stdout)
    assert report["healthy"] is True
    assert report["problems"] == []
    assert report["versions"]["numpy"] == metadata.version("numpy")
    assert report["machine"]["device"] in ("cpu", "cuda")
    assert report["machine"]["threads"] >= 1
    assert report["graph"]["ok"] is True
    assert report["graph"]["carrier"] == graph_carrier().name
    assert report["graph"]["reason"] == graph_carrier().reason
    assert "demo" in report["datasets"]["found"]
    (given, cache) = report["datasets"]["places"]
    assert given == {"name": "$MBGRAPH_DATA", "path": str(data_home), "exists": True}
    assert cache["exists"] is False


def test_an_unset_folder_is_said_to_be_unset(data_home, monkeypatch):
    monkeypatch.delenv("MBGRAPH_DATA")
    assert "datasets in $MBGRAPH_DATA: not set" in run().stdout


def test_a_broken_dataset_is_a_problem_that_names_the_file(data_home):
    (data_home / "shop").mkdir()
    (data_home / "shop" / "meta.json").write_text("{}")
    result = run()
    assert result.exit_code == 1
    assert "shop" in result.stderr
    assert "meta.json lacks the key" in result.stderr


def test_a_missing_optional_package_is_no_problem(data_home, monkeypatch):
    monkeypatch.setattr(doctor, "OPTIONAL", ("no-such-package",))
    result = run()
    assert result.exit_code == 0
    assert "not installed" in result.stdout


def test_a_missing_required_package_is_named(data_home, monkeypatch):
    monkeypatch.setattr(doctor, "REQUIRED", (*doctor.REQUIRED, "no-such-package"))
    result = run()
    assert result.exit_code == 1
    assert result.stderr.strip() == "error: no-such-package is not installed; run: pip install no-such-package"


def test_wrong_sums_are_a_problem(data_home, monkeypatch):
    monkeypatch.setattr(graph_carrier().module.ops, "copy_u_sum", lambda graph, rows: rows * 0)  # dmlc/dgl#5725
    result = run()
    assert result.exit_code == 1
    assert "sums neighbours wrongly on a 2 x 2 graph" in result.stderr
    assert result.stderr.strip().endswith(REMEDY)
    assert ("MBGRAPH_GRAPH=own" in result.stderr) is (graph_carrier().name == "dgl")


def test_a_crashing_kernel_is_a_problem(data_home, monkeypatch):
    def crash(graph, rows):
        raise RuntimeError("symbol\nnot found")

    monkeypatch.setattr(graph_carrier().module.ops, "copy_u_sum", crash)
    result = run()
    assert result.exit_code == 1
    assert "cannot sum over a graph (symbol not found)" in result.stderr


@pytest.mark.parametrize("installed", [True, False])
def test_a_torch_that_does_not_load_is_one_problem_not_two(data_home, monkeypatch, installed):
    real = doctor.importlib.import_module

    def broken(name):
        if name == "torch":
            raise OSError("libtorch_cpu.so: undefined symbol")
        return real(name)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    if not installed:
        version = doctor.package_version
        monkeypatch.setattr(doctor, "package_version", lambda name: None if name == "torch" else version(name))
    result = run("--json")
    (problem,) = json.loads(result.stdout)["problems"]
    assert result.exit_code == 1
    assert ("undefined symbol" in problem) is installed
    assert ("torch is not installed" in problem) is not installed
