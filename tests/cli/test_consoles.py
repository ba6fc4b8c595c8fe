"""Text from data on a terminal: plain, whole, and never obeyed."""

import io

import pytest
from rich.progress import Progress

from mbgraph.cli.common import make_table
from mbgraph.cli.consoles import PlainConsole, TextColumn, one_line, visible

HOSTILE = "[/b] [red]x[/red] :smile: \x1b]0;owned\x07 \x9b31m \u202eevil \ud800 end"


def shown(width=200):
    return PlainConsole(file=io.StringIO(), width=width)


@pytest.mark.parametrize("soft_wrap", [True, False])
def test_what_is_printed_is_what_is_seen(soft_wrap):
    console = shown()
    console.print(HOSTILE, soft_wrap=soft_wrap)
    text = console.file.getvalue()
    assert "[/b] [red]x[/red] :smile:" in text
    assert r"\x1b]0;owned\x07 \x9b31m \u202eevil \ud800 end" in text


def test_tables_and_their_titles_are_plain_too():
    console = shown()
    console.print_table(make_table(HOSTILE, [HOSTILE], [[HOSTILE]]))
    text = console.file.getvalue()
    assert text.count("[red]x[/red]") == 3
    assert "\x1b" not in text


def test_bars_are_plain_too():
    console = shown()
    with Progress(TextColumn("{task.description}"), console=console) as bar:
        bar.add_task(HOSTILE, total=1)
    assert "[red]x[/red]" in console.file.getvalue()


def test_line_breaks_stay_in_text_and_go_from_errors():
    assert visible("a\n\tb") == "a\n\tb"
    assert one_line("a\nb\r\n\u2028c") == "a b  c"


def test_no_figure_is_cut_on_a_narrow_terminal():
    figures = [["HR@10", 0.123456, 1_234_567_890, "[-0.0012, +0.0034]"]]
    console = shown(width=30)
    console.print_table(make_table("t", ["metric", "value", "users", "interval"], figures))
    line = next(line for line in console.file.getvalue().splitlines() if "HR@10" in line)
    assert "0.1235" in line
    assert "1,234,567,890" in line
    assert "\u2026" not in console.file.getvalue()


def test_a_terminal_without_a_size_has_eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "0")
    assert PlainConsole(file=io.StringIO()).width == 80
