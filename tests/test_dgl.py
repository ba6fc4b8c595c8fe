"""The door to DGL, with packages in its place that are broken the way real ones are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mbgraph
from mbgraph._dgl import REMEDY, import_dgl

ROOT = Path(mbgraph.__file__).resolve().parents[1]

GRAPHBOLT = """\
raise FileNotFoundError(
    "Cannot find DGL C++ graphbolt library at "
    "/usr/lib/python3.11/site-packages/dgl/graphbolt/libgraphbolt_pytorch_2.13.0.so"
)
"""


def fake_dgl(folder: Path, code: str, version: str = "2.1.0") -> Path:
    """Make a folder with a package ``dgl`` whose import runs ``code``."""
    (folder / "dgl").mkdir(parents=True)
    (folder / "dgl" / "__init__.py").write_text(code)
    (folder / f"dgl-{version}.dist-info").mkdir()
    (folder / f"dgl-{version}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: dgl\nVersion: {version}\n"
    )
    return folder


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


DOOR = """\
from mbgraph._dgl import import_dgl
from mbgraph.errors import MbgraphError
try:
    import_dgl()
except MbgraphError as error:
    print(error)
"""
CLI = "from mbgraph.cli.main import main; main()"


def test_the_graphbolt_error_becomes_one_line_with_versions_and_command(tmp_path):
    done = run(fake_dgl(tmp_path, GRAPHBOLT), "-c", DOOR)
    (line,) = done.stdout.splitlines()
    assert line.startswith("dgl 2.1.0 does not work with torch ")
    assert "Cannot find DGL C++ graphbolt library" in line
    assert line.endswith(f"; run: {REMEDY}")
    assert done.stderr == ""


@pytest.mark.parametrize(
    "code",
    [
        "import torchdata.datapipes.missing",  # dgl 2.x with torchdata >= 0.10
        "raise OSError('libcudart.so.11.0: cannot open shared object file')",
        "raise AttributeError('_ARRAY_API not found')",  # built for numpy 1
        "raise RuntimeError()",
        "raise ImportError('several\\n  lines\\nof text')",
    ],
)
def test_every_way_to_break_is_one_line(tmp_path, code):
    done = run(fake_dgl(tmp_path, code), "-c", DOOR)
    (line,) = done.stdout.splitlines()
    assert line.endswith(REMEDY), done.stderr


def test_a_missing_dgl_is_called_missing(tmp_path):
    blocker = "import sys\nsys.modules['dgl'] = None\n"
    done = run(tmp_path, "-c", blocker + DOOR)
    assert done.stdout.strip() == f"dgl is not installed; run: {REMEDY}"


def test_the_environment_and_stdout_stay_as_they_were(tmp_path):
    code = "print('Setting the default backend'); import os; assert os.environ['DGLBACKEND'] == 'pytorch'"
    probe = DOOR + "import os; print(os.environ.get('DGLBACKEND'))"
    done = run(fake_dgl(tmp_path, code), "-c", probe, DGLBACKEND="mxnet")
    assert done.stdout.splitlines() == ["mxnet"], done.stdout + done.stderr


def test_the_door_is_opened_once():
    assert import_dgl() is import_dgl()


def test_doctor_explains_a_broken_pair_in_one_line(tmp_path):
    both = """\
import json
from click.testing import CliRunner
from mbgraph.cli.main import cli
shown = [CliRunner().invoke(cli, ["doctor", *options]) for options in ([], ["--json"])]
print(json.dumps([(one.exit_code, one.stdout, one.stderr) for one in shown]))
"""
    done = run(fake_dgl(tmp_path, GRAPHBOLT), "-c", both)
    (code, _, error), (code_json, output, _) = json.loads(done.stdout)
    (line,) = error.splitlines()
    assert line.startswith("error: dgl 2.1.0 does not work with torch ")
    assert line.endswith(REMEDY)
    report = json.loads(output)
    assert (code, code_json, report["healthy"], report["dgl"]["ok"]) == (1, 1, False, False)
    assert report["problems"][0].startswith("dgl 2.1.0 does not work")


def test_commands_that_need_no_graph_work_with_a_broken_dgl(tmp_path):
    done = run(fake_dgl(tmp_path, GRAPHBOLT), "-c", CLI, "inspect", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["users"] == 2_000


def test_training_with_a_broken_dgl_says_so_without_a_traceback(tmp_path):
    done = run(
        fake_dgl(tmp_path, GRAPHBOLT), "-c", CLI, "fit", "--epochs", "1", "--quiet", "--out", str(tmp_path / "run")
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(REMEDY)
