"""The group itself: lazy commands, nearest names, one-line errors, help with examples."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from mbgraph.cli import main as entry
from mbgraph.cli.common import Command, console, emit_json, format_number
from mbgraph.cli.main import cli
from mbgraph.data.formats.npz import write_npz
from mbgraph.errors import DataError, RunError

COMMANDS = cli.list_commands(click.Context(cli))


def run(*arguments, **options):
    return CliRunner().invoke(cli, arguments, **options)


def test_help_lists_every_command():
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name}" in result.output


def test_the_promised_commands_exist():
    assert {
        "fit",
        "evaluate",
        "recommend",
        "export",
        "inspect",
        "perturb",
        "data",
        "compare",
        "doctor",
        "models",
    } <= set(COMMANDS)


def leaves(command, *path):
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            yield from leaves(command.get_command(click.Context(command), name), *path, name)
    else:
        yield path


@pytest.mark.parametrize("path", list(leaves(cli)), ids=" ".join)
def test_every_command_has_help_with_examples_and_json(path):
    result = run(*path, "--help")
    assert result.exit_code == 0, result.output
    assert "--json" in result.output
    assert f"mbgraph {' '.join(path)}" in result.output, "no example in the help"


def test_an_unknown_command_names_the_nearest():
    result = run("fti")
    assert result.exit_code == 2
    assert "no such command 'fti'; did you mean 'fit'?" in result.stderr


def test_an_unknown_option_is_a_usage_error():
    result = run("inspect", "--jsn")
    assert result.exit_code == 2
    assert "--jsn" in result.stderr


@pytest.mark.parametrize("name", ["main", "common", "progress"])
def test_helpers_are_no_commands(name):
    assert name not in COMMANDS
    assert run(name).exit_code == 2


def test_listing_commands_loads_neither_torch_nor_dgl():
    code = (
        "import sys; from mbgraph.cli.main import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "sys.exit(str([m for m in ('torch', 'dgl', 'pandas') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


@pytest.fixture
def failing(monkeypatch):
    """A command that raises what the test puts into it."""
    raised = []

    @click.command(cls=Command)
    def command():
        raise raised[0]

    monkeypatch.setattr(entry.LazyGroup, "get_command", lambda self, ctx, name: command)
    monkeypatch.setattr(entry.LazyGroup, "list_commands", lambda self, ctx: ["boom"])
    return raised


@pytest.mark.parametrize("error", [DataError("no pairs in [view] :smile:", "add some"), RunError("x" * 300, "wait")])
def test_errors_are_one_line_with_the_exit_code(failing, error):
    failing.append(error)
    result = run("boom")
    assert result.exit_code == error.exit_code
    assert result.stderr == f"error: {error}\n"  # brackets are no markup, and long lines do not wrap
    assert result.stdout == ""


def test_debug_keeps_the_traceback(failing):
    failing.append(DataError("what", "remedy"))
    result = run("--debug", "boom")
    assert isinstance(result.exception, DataError)


def test_bugs_are_not_hidden(failing):
    failing.append(ZeroDivisionError("a bug"))
    assert isinstance(run("boom").exception, ZeroDivisionError)


def test_json_is_plain(capsys):
    import json
    from pathlib import Path

    import numpy as np

    emit_json(
        {
            "a": np.float32(0.5),
            "b": np.arange(2),
            "c": float("nan"),
            "d": Path("x"),
            "e": (1, {"f": np.int64(3)}),
            4: None,
        }
    )
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert json.loads(line) == {"a": 0.5, "b": [0, 1], "c": None, "d": "x", "e": [1, {"f": 3}], "4": None}


@pytest.mark.parametrize(
    ("value", "text"), [(1234567, "1,234,567"), (0.123456, "0.1235"), (None, "-"), (float("nan"), "-")]
)
def test_numbers_in_tables(value, text):
    assert format_number(value) == text


def test_notices_go_to_stderr():
    assert console.stderr


def test_limits_are_raised_for_one_command(tiny, tmp_path):
    write_npz(tiny, tmp_path / "tiny")
    refused = run("--limit", "users=5", "inspect", str(tmp_path / "tiny"))
    assert refused.exit_code == 2
    assert "6 users are more than the limit of 5 (users); if the file is to be trusted, raise it" in refused.stderr
    assert run("inspect", str(tmp_path / "tiny")).exit_code == 0
    for wrong in ("users=0", "user=5", "users"):
        result = run("--limit", wrong, "inspect", str(tmp_path / "tiny"))
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
