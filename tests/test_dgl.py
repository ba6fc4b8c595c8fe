"""The door to DGL, with packages in its place that are broken the way real ones are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mbgraph
from mbgraph import _heterograph
from mbgraph._dgl import REMEDY, SWITCH, graph_carrier, import_dgl

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
from mbgraph._dgl import graph_carrier, import_dgl
from mbgraph.errors import MbgraphError
try:
    import_dgl()
    print(graph_carrier().name, graph_carrier().reason, sep=": ")
except MbgraphError as error:
    print(error)
"""
CLI = "from mbgraph.cli.main import main; main()"


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    return line


def test_a_dgl_that_does_not_load_is_one_line_with_versions_and_command_for_those_who_ask_for_it(tmp_path):
    line = one_line(run(fake_dgl(tmp_path, GRAPHBOLT), "-c", DOOR, MBGRAPH_GRAPH="dgl"))
    assert line.startswith("dgl 2.1.0 does not work with torch ")
    assert "Cannot find DGL C++ graphbolt library" in line
    assert line.endswith(f"; run: {REMEDY}")


BROKEN = [
    "import torchdata.datapipes.missing",  # dgl 2.x with torchdata >= 0.10
    "raise OSError('libcudart.so.11.0: cannot open shared object file')",
    "raise AttributeError('_ARRAY_API not found')",  # built for numpy 1
    "raise RuntimeError()",
    "raise ImportError('several\\n  lines\\nof text')",
]


@pytest.mark.parametrize("code", BROKEN)
def test_every_way_to_break_is_one_line(tmp_path, code):
    assert one_line(run(fake_dgl(tmp_path, code), "-c", DOOR, MBGRAPH_GRAPH="dgl")).endswith(REMEDY)


@pytest.mark.parametrize("code", BROKEN[1:3])
def test_where_dgl_does_not_load_our_heterograph_carries_the_graph_and_says_why(tmp_path, code):
    line = one_line(run(fake_dgl(tmp_path, code), "-c", DOOR, MBGRAPH_GRAPH="auto"))
    assert line.startswith("mbgraph: dgl 2.1.0 does not work with torch ")
    assert line.endswith(")")  # the reason, no command: there is nothing to mend


BLOCKER = "import sys\nsys.modules['dgl'] = None\n"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("auto", "mbgraph: dgl is not installed"), ("dgl", f"dgl is not installed; run: {REMEDY}")],
)
def test_a_missing_dgl_is_called_missing(tmp_path, choice, expected):
    assert one_line(run(tmp_path, "-c", BLOCKER + DOOR, MBGRAPH_GRAPH=choice)) == expected


def test_our_heterograph_carries_the_graph_where_asked_and_dgl_is_not_even_imported(tmp_path):
    code = "raise SystemExit('imported')"
    line = one_line(run(fake_dgl(tmp_path, code), "-c", DOOR, MBGRAPH_GRAPH="own"))
    assert line == "mbgraph: MBGRAPH_GRAPH=own asks for it"


def test_an_unknown_choice_names_the_others(tmp_path):
    line = one_line(run(tmp_path, "-c", DOOR, MBGRAPH_GRAPH="pyg"))
    assert line == "unknown value of MBGRAPH_GRAPH 'pyg'; choose from: auto, dgl, own"


@pytest.mark.parametrize(
    ("installed", "message"), [(True, "does not load (no symbol)"), (False, "torch is not installed")]
)
def test_a_torch_that_does_not_load_is_one_line(tmp_path, installed, message):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('no\\nsymbol')")
    code = DOOR
    if not installed:
        code = f"import mbgraph._dgl as door; door._version = lambda package: 'not installed'\n{DOOR}"
    line = one_line(run(tmp_path, "-c", BLOCKER + code, MBGRAPH_GRAPH="auto"))
    assert message in line
    assert line.endswith(REMEDY)


# What DGL 2.x does when it is imported: its distributed part imports graphbolt and uses it only when called.
def dgl_2(folder: Path, graphbolt: str, package: str = "from . import graphbolt\nversion = 2\n") -> Path:
    fake_dgl(folder, package)
    (folder / "dgl" / "graphbolt").mkdir()
    (folder / "dgl" / "graphbolt" / "__init__.py").write_text(f"from . import base\nwidth = 3\n{graphbolt}")
    (folder / "dgl" / "graphbolt" / "base.py").write_text("")
    return folder


PROBE = """
import sys
import dgl, dgl.graphbolt as closed
print(dgl.version, hasattr(closed, "width"), "dgl.graphbolt.base" in sys.modules, len(sys.meta_path))
try:
    closed.FusedCSCSamplingGraph
except AttributeError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (GRAPHBOLT, "Cannot find DGL C++ graphbolt library"),
        ("from torchdata.datapipes.iter import missing_here", "torchdata"),
        ("raise ImportError('Cannot load Graphbolt C++ library')", "Cannot load Graphbolt C++ library"),
    ],
)
def test_a_graphbolt_that_does_not_load_is_left_out_of_dgl_2(tmp_path, code, reason):
    count = "import sys; before = len(sys.meta_path)\n"
    done = run(dgl_2(tmp_path, code), "-c", f"{count}{DOOR}{PROBE}print(before)", MBGRAPH_GRAPH="auto")
    carrier, state, missing, before = done.stdout.splitlines()
    assert carrier.startswith("dgl: dgl 2.1.0 loads with torch ")
    assert "; dgl.graphbolt does not (" in carrier
    assert reason in carrier
    assert carrier.endswith("and mbgraph does not need it")
    assert state == f"2 False False {before}", "the stand-in is empty and the finder is gone"
    assert missing.startswith("dgl.graphbolt did not load, so it has no 'FusedCSCSamplingGraph'")


def test_a_graphbolt_that_loads_stays(tmp_path):
    done = run(dgl_2(tmp_path, ""), "-c", DOOR + PROBE, MBGRAPH_GRAPH="auto")
    carrier, state, *_ = done.stdout.splitlines()
    assert carrier.startswith("dgl: dgl 2.1.0 loads with torch ")
    assert "graphbolt" not in carrier
    assert state.startswith("2 True True ")


@pytest.mark.parametrize("package", ["from . import other\n", "from . import graphbolt, other\n"])
def test_only_graphbolt_is_forgiven(tmp_path, package):
    folder = dgl_2(tmp_path, GRAPHBOLT, package)
    (folder / "dgl" / "other.py").write_text("raise FileNotFoundError('libdgl.so')")
    line = one_line(run(folder, "-c", DOOR, MBGRAPH_GRAPH="auto"))
    assert line.startswith("mbgraph: dgl 2.1.0 does not work with torch ")
    assert line.endswith("(libdgl.so)")


def test_the_environment_and_stdout_stay_as_they_were(tmp_path):
    code = "print('Setting the default backend'); import os; assert os.environ['DGLBACKEND'] == 'pytorch'"
    probe = DOOR + "import os; print(os.environ.get('DGLBACKEND'))"
    done = run(fake_dgl(tmp_path, code), "-c", probe, DGLBACKEND="mxnet", MBGRAPH_GRAPH="dgl")
    assert done.stdout.splitlines()[1:] == ["mxnet"], done.stdout + done.stderr
    assert "Setting" not in done.stdout


def test_the_door_is_opened_once():
    assert import_dgl() is import_dgl()
    assert graph_carrier() is graph_carrier()


def test_the_switch_decides_what_carries_the_graph_of_these_tests():
    choice = os.environ.get(SWITCH)
    if choice == "own":
        assert import_dgl() is _heterograph
    elif choice == "dgl":
        assert graph_carrier().name == "dgl"
    assert graph_carrier().name in ("dgl", "mbgraph")


def test_a_graph_is_made_by_what_carries_it():
    graph = mbgraph.heterograph({("user", "buy", "item"): ([0, 1], [1, 1])}, num_nodes_dict={"user": 3, "item": 2})
    assert (graph.num_nodes("user"), graph.num_edges("buy")) == (3, 2)
    assert isinstance(graph, mbgraph.HeteroGraph) is (graph_carrier().name == "mbgraph")


@pytest.mark.parametrize("command", [[], ["--json"]])
def test_doctor_explains_a_broken_pair_in_one_line_to_those_who_ask_for_dgl(tmp_path, command):
    done = run(fake_dgl(tmp_path, GRAPHBOLT), "-c", CLI, "doctor", *command, MBGRAPH_GRAPH="dgl")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: dgl 2.1.0 does not work with torch ")
    assert line.endswith(REMEDY)
    if command:
        report = json.loads(done.stdout)
        assert (report["healthy"], report["graph"]["ok"], report["graph"]["carrier"]) == (False, False, None)
        assert report["problems"][0].startswith("dgl 2.1.0 does not work")


def test_doctor_names_what_carries_the_graph_and_why(tmp_path):
    done = run(fake_dgl(tmp_path, GRAPHBOLT), "-c", CLI, "doctor", MBGRAPH_GRAPH="auto")
    assert done.returncode == 0, done.stderr
    assert "mbgraph itself carries the graph: dgl 2.1.0 does not work with torch " in done.stdout
    assert "mbgraph's own heterograph with torch" in done.stdout
    done = run(tmp_path / "again", "-c", CLI, "doctor", "--json", MBGRAPH_GRAPH="own")
    graph = json.loads(done.stdout)["graph"]
    assert (done.returncode, graph["ok"], graph["carrier"]) == (0, True, "mbgraph")
    assert graph["reason"] == "MBGRAPH_GRAPH=own asks for it"


def test_commands_that_need_no_graph_work_with_a_broken_dgl(tmp_path):
    done = run(fake_dgl(tmp_path, GRAPHBOLT), "-c", CLI, "inspect", "--json", MBGRAPH_GRAPH="dgl")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["users"] == 2_000


FIT = ("-c", CLI, "fit", "--epochs", "1", "--set", "embedding_dim=8", "--quiet", "--out")


def test_training_where_dgl_is_asked_for_and_broken_says_so_without_a_traceback(tmp_path):
    done = run(fake_dgl(tmp_path, GRAPHBOLT), *FIT, str(tmp_path / "run"), MBGRAPH_GRAPH="dgl")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(REMEDY)


@pytest.mark.slow
def test_training_reaches_the_same_numbers_without_dgl(tmp_path, small_folder):
    folder = fake_dgl(tmp_path, GRAPHBOLT)
    found = []
    for name, path in (("here", tmp_path / "empty"), ("own", folder)):
        done = run(path, *FIT, str(tmp_path / name), str(small_folder), MBGRAPH_GRAPH="auto")
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / name / "test.json").read_text())["test"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
