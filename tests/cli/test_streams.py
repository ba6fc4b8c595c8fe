"""Standard output closed, full or cut off; the working directory gone; bounds on every number."""

import errno
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from mbgraph.cli.common import PATH, Command
from mbgraph.cli.main import cli
from mbgraph.cli.streams import whole_output

WHERE = [sys.executable, "-m", "mbgraph", "data", "where"]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_a_closed_output_is_no_error():
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *WHERE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device")
def test_a_full_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(WHERE, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "standard output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_nobody_reads_on(monkeypatch):
    class Cut:
        def flush(self):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        def fileno(self):
            raise OSError

    monkeypatch.setattr(sys, "stdout", Cut())
    with pytest.raises(SystemExit) as caught, whole_output():
        pass
    assert caught.value.code == 141


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOSPC, "No space left on device", "a/b")])
def test_what_the_system_refuses_is_one_line(error):
    @click.command(cls=Command)
    def failing():
        raise error

    result = CliRunner().invoke(failing)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a working directory cannot be removed there")
@pytest.mark.parametrize("command", [["data", "where"], ["fit", "demo"]])
def test_a_working_directory_that_is_gone(tmp_path, monkeypatch, command):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 1
    assert result.stderr == "error: the working directory is gone; change to one that exists\n"


def parameters(command, path=()):
    context = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from parameters(command.get_command(context, name), (*path, name))
        return
    for parameter in command.get_params(context):
        yield " ".join((*path, parameter.name)), parameter


def test_every_number_has_bounds_and_every_path_is_checked():
    """Numbers of sections are bounded by their fields, see tests/test_schema.py; these are the other options."""
    wrong = []
    for name, parameter in parameters(cli):
        kind = parameter.type
        if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
            bounded = getattr(kind, "min", None) is not None and getattr(kind, "max", None) is not None
            wrong += [] if bounded else [f"{name}: no bounds"]
        if isinstance(kind, click.Path) and kind is not PATH:
            wrong.append(f"{name}: a path that is not checked")
    assert not wrong, wrong


@pytest.mark.parametrize("path", ["a\0b", "~nobody-at-all/x", "x" * 5000])
def test_paths_that_none_can_be_are_refused_with_the_command_line(path):
    for arguments in (["fit", "--out", path], ["compare", path, "b"], ["inspect", path], ["data", "where", path]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 2, result.output
        assert "cannot use the path" in result.stderr
        assert result.stderr.count("\n") == 1


def test_threads_have_a_bound():
    result = CliRunner().invoke(cli, ["fit", "--threads", "100000"])
    assert result.exit_code == 2
    assert "threads of the configuration must be a whole number from 0 to 1024, got 100000" in result.stderr
