"""Every example of the README and the docs runs; every local link leads somewhere.

A block is run if its language is ``python``, or ``bash``/``console`` with lines that start with ``mbgraph``. Blocks of
a page share one folder and run in order: python blocks share their names, commands find files that earlier ones made.
``<!-- no-test: reason -->`` on the line before a block leaves it out; a ``bash`` line that is not ``mbgraph`` needs it.
"""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from mbgraph.bench.report import render_page
from mbgraph.cli.main import cli
from mbgraph.models import EVIDENCE, MODELS, RMBRec
from mbgraph.regularizers import REGULARIZERS

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:^<!-- no-test: (?P<reason>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass
class Block:
    language: str
    text: str
    line: int
    reason: str | None

    def commands(self):
        """Return the shell commands of the block; in a console block they start with ``$ ``, the rest is output."""
        joined = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            return [line[2:] for line in joined if line.startswith("$ ")]
        return [line for line in joined if line.strip() and not line.startswith("#")]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["text"], text.count("\n", 0, found.start("text")), found["reason"])
        for found in FENCE.finditer(text)
    ]


def test_the_promised_pages_exist():
    research = {"models", "regularizers", "protocol", "reproduce", "speed"}
    assert {page.stem for page in PAGES} >= {"start", "concepts", "data", "architecture", "faq", "api"} | research


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_known(page):
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        assert block.language in {"python", "bash", "console", "toml", "json", "text"}, where
        if block.reason is None and block.language in {"bash", "console"}:
            assert block.commands(), f"{where}: no command"
            for command in block.commands():
                assert command.startswith("mbgraph "), f"{where}: not run, so it needs <!-- no-test: reason -->"
        if block.reason is not None:
            assert len(block.reason) > 10, f"{where}: say why"


def run_command(command: str, where: str) -> None:
    words = shlex.split(command, comments=True)
    result = CliRunner().invoke(cli, words[1:])
    assert result.exit_code == 0, f"{where}: {command}\n{result.output}"


def run_python(block: Block, page: Path, names: dict[str, object]) -> None:
    # compiled with the page's own line numbers, so that a traceback points at the page
    tree = ast.increment_lineno(ast.parse(block.text), block.line)
    exec(compile(tree, str(page), "exec", dont_inherit=True), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page, tmp_path, monkeypatch, data_home):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for registry in (MODELS, REGULARIZERS, EVIDENCE):  # what an example registers is gone after it
        monkeypatch.setattr(registry, "_entries", {name: registry.get(name) for name in registry})
    names: dict[str, object] = {"__name__": "__docs__"}
    for block in blocks(page):
        if block.reason is not None:
            continue
        if block.language == "python":
            run_python(block, page, names)
        elif block.language in {"bash", "console"}:
            for command in block.commands():
                run_command(command, f"{page.name}:{block.line}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_not_run_at_least_parse(page):
    """A command on real data is not run here, but its name and its options exist."""
    for block in blocks(page):
        if block.reason is None or block.language not in {"bash", "console"}:
            continue
        for command in block.commands():
            if not command.startswith("mbgraph "):
                continue
            words = shlex.split(command.split(" > ")[0], comments=True)[1:]
            result = CliRunner().invoke(cli, [*words, "--help"])
            assert result.exit_code == 0, f"{page.name}:{block.line}: {command}\n{result.output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_their_csv_files(page):
    """Numbers of a page stand in a committed file: ``mbgraph bench render PAGE`` has nothing left to do."""
    assert render_page(page, REPOSITORY) == page.read_text(encoding="utf-8")


def test_public_names_are_in_the_api_page():
    import mbgraph

    page = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    for name in mbgraph.__all__:
        if name != "__version__":
            assert f"mb.{name}" in page, f"docs/api.md does not mention mb.{name}"
    for name in mbgraph.nn.__all__:
        assert re.search(rf"\b{name}\b", page), f"docs/api.md does not mention mb.nn.{name}"


def test_models_and_regularizers_are_documented():
    models, regularizers = ((REPOSITORY / "docs" / f"{name}.md").read_text() for name in ("models", "regularizers"))
    for name in MODELS:
        assert f"`{name}`" in models
    for name in REGULARIZERS:
        assert f"`{name}`" in regularizers


def test_the_options_of_all_are_tables_made_from_their_fields():
    models, regularizers = ((REPOSITORY / "docs" / f"{name}.md").read_text() for name in ("models", "regularizers"))
    for name in MODELS:
        assert f"<!-- options: model {name} -->" in models or not MODELS.get(name).Options.names()
    for name in REGULARIZERS:
        assert f"<!-- options: regularizer {name} -->" in regularizers
    assert "<!-- options: training -->" in models
    assert "<!-- options: evaluation -->" in (REPOSITORY / "docs" / "protocol.md").read_text()
    assert "<!-- options: configuration -->" in (REPOSITORY / "docs" / "start.md").read_text()


@pytest.mark.parametrize("variant", RMBRec.variants())
def test_the_table_of_variants_says_what_the_code_does(variant):
    page = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
    table = page[page.index("| Point |") :].split("\n\n")[0]
    header, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    column = next(place for place, name in enumerate(header) if f"`{variant}`" in name)
    options = RMBRec.Options(variant=variant)
    actual = {**options.training().values(), **options.values()}
    found = {}
    for cells in lines:
        option = re.search(r"\(`(\w+)`\)", cells[0])
        value = re.match(r"`(.+?)`", cells[column])
        if option and value:
            found[option[1]] = value[1]
    assert {"layer_norm", "combine", "padding", "gamma", "history", "weight_decay"} == set(found)
    assert found == {name: str(actual[name]) for name in found}


def test_the_citation_names_this_version():
    import mbgraph

    cited = re.search(r"^version: (.+)$", (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited is not None
    assert cited[1] == mbgraph.__version__
