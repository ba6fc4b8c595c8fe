"""Command lines that abuse one option: every option of every command with values that nobody means."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from mbgraph.cli.common import PATH
from mbgraph.cli.main import cli

sys.path.insert(0, str(Path(__file__).parent))
from mutations import NUMBERS, WORDS

__all__ = ["abused"]

VALUES = [
    *(number.decode() for number in NUMBERS),
    *WORDS,
    ",",
    "a=b",
    "=",
    "a:b:c",
    "1.5",
    "-",
    "nan",
    "1e-400",
    "٣",
    "²",
    "9" * 5000,
]
OUTSIDE = ("/", "..", "~", "$")
"""What a path may say only because whoever gives the command wants it."""

TRAIN = ["--quiet", "--epochs", "1", "--batch-size", "64", "--set", "embedding_dim=4", "--set", "num_layers=1"]
STUDY = ["--list", "--store", "store"]
LEFT_OUT = {"help", "version", "dry_run"}  # a forecast is measured in a process of its own


def _given(data: str, run: str, log: str) -> dict[tuple[str, ...], list[str]]:
    """Return, by command, arguments that work and take no time; commands that are left out reach for the network."""
    studies = ("all", "noise", "plugins", "sensitivity", "table1", "table2", "table3", "table4", "table5", "variants")
    return {
        **{("bench", study): STUDY for study in studies},
        ("bench", "collect"): [run],
        ("bench", "speed"): ["--dry-run"],
        ("compare",): [run, run],
        ("data", "check"): [data],
        ("data", "convert"): [data, "-o", "out"],
        ("data", "import"): [log, "--target", "buy", "-o", "out"],
        ("data", "ls"): [],
        ("data", "show"): ["taobao"],
        ("data", "where"): ["taobao"],
        ("doctor",): [],
        ("evaluate",): [run],
        ("export",): [run, "-o", "out.npz"],
        ("fit",): [data, *TRAIN],
        ("inspect",): [data],
        ("models",): [],
        ("perturb",): [data, "--add", "0.5", "-o", "out"],
        ("recommend",): [run, "--all", "-k", "2"],
        ("report",): [run, "-o", "out.html"],
        ("tune",): ["--help"],
    }


def _options(command: click.Group, path: tuple[str, ...]) -> Iterator[click.Option]:
    found: click.Command = command
    for word in path:
        found = found.get_command(click.Context(found), word)
    for parameter in found.get_params(click.Context(found)):
        if isinstance(parameter, click.Option) and parameter.name not in LEFT_OUT:
            yield parameter


def abused(data: Path, run: Path, log: Path) -> list[list[str]]:
    """Return the command lines."""
    lines = []
    for path, given in _given(str(data), str(run), str(log)).items():
        for option in _options(cli, path):
            name = max(option.opts, key=len)
            if option.is_flag:
                lines += [[*path, *given, name], [*path, *given, f"{name}=1"]]
                continue
            for value in VALUES:
                if option.type is PATH and any(mark in value for mark in OUTSIDE):
                    continue
                lines.append([*path, *given, *[name] * bool(name), value])
    return lines
