"""`mbgraph report`: pages that stand alone, and look right in a browser where there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

from mbgraph.cli.main import cli
from mbgraph.config import FitConfig
from mbgraph.run import fit

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRAWS = importlib.util.find_spec("matplotlib") is not None


@pytest.fixture(scope="module")
def run(small_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "one"
    fit(FitConfig(dataset=str(small_folder), training={"epochs": 3}), path)
    return path


@pytest.fixture
def report(tmp_path, data_home, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def called(*arguments, code=0):
        result = CliRunner().invoke(cli, ["report", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result

    return called


class Page(HTMLParser):
    """Collects tags, and checks that they nest."""

    VOID = {"meta", "link", "img"}  # noqa: RUF012

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_page_of_a_run_stands_alone(report, run, tmp_path):
    assert report(run, "-o", "page.html").stderr.endswith("wrote page.html\n")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    for heading in ("Results", "Users", "Training", "Data", "Configuration", "Repeating it"):
        assert f"<h2>{heading}</h2>" in text
    outcome = json.loads((run / "test.json").read_text())
    assert f"<td>{outcome['test']['HR@10']:.4f}</td>" in text
    assert "training.epochs = 3" in text
    assert "Synthetic data" in text
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")


def test_a_page_of_a_study(report, tmp_path):
    answer = json.loads(report("table1", "--datasets", "demo", "--json").stdout)
    assert answer["file"] == "report.html"
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    Page(text)
    assert "demo (synthetic)" in text
    assert "0.3500" in text  # DT


def test_what_is_shown_is_text(report, small_folder, tmp_path):
    (tmp_path / "bad.toml").write_text(
        'title = "<script>alert(1)</script>"\nquestion = "a & b?"\nkind = "statistics"\n'
        f'datasets = ["{small_folder.as_posix()}"]\nmetrics = ["users"]\n'
    )
    report("bad.toml")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "a &amp; b?" in text


def test_an_unfinished_run_is_one_line(report, run, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(run, half)
    (half / "test.json").unlink()
    assert "is no finished run: test.json is missing; continue it: mbgraph fit --resume" in report(half, code=1).stderr
    (half / "test.json").write_text("{}")
    assert "test.json is not the file that was written there" in report(half, code=1).stderr
    assert "no run directory at nothing" in report("nothing", code=1).stderr
    assert "is a folder; name a file with -o" in report(run, "-o", tmp_path, code=2).stderr


PROBE = """
<script>
addEventListener("load", () => {
  const told = {
    width: document.documentElement.scrollWidth, window: innerWidth,
    pictures: [...document.images].map(image => image.naturalWidth), errors: window.failed || [],
  };
  document.body.dataset.told = JSON.stringify(told);
});
addEventListener("error", event => { (window.failed ||= []).push(String(event.message)); }, true);
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium here: the page is not looked at in a browser")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_it_all(report, run, tmp_path, width):
    report(run)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    # the page forbids scripts; its copy for the test has one that measures
    open_text = re.sub(r"<meta http-equiv=[^>]*>", "", text)
    (tmp_path / "probe.html").write_text(open_text.replace("<title>", PROBE + "<title>", 1), encoding="utf-8")
    # headless windows are not narrower than 500 pixels: a frame is
    frame = f'<iframe src="probe.html" style="width:{width}px;height:900px;border:0"></iframe>'
    (tmp_path / "frame.html").write_text(
        f"<body>{frame}<script>onload = () => setTimeout(() => {{ document.body.dataset.told ="
        " document.querySelector('iframe').contentDocument.body.dataset.told; }, 300)</script></body>"
    )
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1500,1000"]
    command += ["--virtual-time-budget=10000", "--dump-dom", (tmp_path / "frame.html").as_uri()]
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=environment)
    found = re.search(r'data-told="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    told = json.loads(found[1].replace("&quot;", '"'))
    assert told["errors"] == []
    assert told["window"] == width
    assert told["width"] <= width  # nothing sticks out; wide tables scroll inside
    assert len(told["pictures"]) == (2 if DRAWS else 0)
    assert all(size > 0 for size in told["pictures"])
