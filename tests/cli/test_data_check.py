import json

import pytest
from click.testing import CliRunner

from mbgraph.cli.main import cli
from mbgraph.data.formats.npz import write_npz


def run(*arguments):
    return CliRunner().invoke(cli, ["data", "check", *map(str, arguments)])


@pytest.fixture
def folder(tiny, tmp_path):
    write_npz(tiny, tmp_path / "tiny")
    return tmp_path / "tiny"


def test_findings_are_shown_with_codes(folder):
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert "MBG111" in result.stdout
    assert "docs/checks.md" in result.stderr


def test_json_holds_code_severity_and_text(folder):
    found = json.loads(run(folder, "--json").stdout)["findings"]
    assert found[0]["code"] == "MBG111"
    assert {"code", "severity", "title", "text"} == set(found[0])
    assert "1 of 2 valid pairs (50.0%)" in found[0]["text"]


def test_strict_ends_with_one(folder):
    result = run(folder, "--strict")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: {folder} has ")
    assert "see docs/checks.md" in result.stderr


def test_data_that_cannot_be_loaded_is_described(folder):
    (folder / "buy.npz").unlink()
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert "MBG100" in result.stdout
    assert run(folder, "--strict").exit_code == 1


def test_unknown_dataset_is_one_line():
    result = run("tabao15k")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: unknown dataset")


def test_without_a_name_the_embedded_data_is_checked():
    assert "MBG111" in run().stdout
