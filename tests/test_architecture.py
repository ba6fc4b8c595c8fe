"""The floors of docs/architecture.md, kept by parsing every import of the package."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "mbgraph"

FLOORS = {
    "F0": (
        "errors",
        "random",
        "registry",
        "typing",
        "files",
        "locks",
        "limits",
        "manifest",
        "keys",
        "schema",
        "machine",
        "processes",
        "derivatives",
        "_kernels",
        "_dgl",
        "_heterograph",
    ),
    "F1": ("data",),
    "F2": ("nn", "regularizers", "evaluation"),
    "F3": ("models",),
    "F4": ("training",),
    "F5": ("config", "reference", "run", "recommend", "export", "doctor"),
    "F6": ("bench", "demo", "testing"),
    "F7": ("cli",),
}
"""Top-level names of the package per floor, lowest first. docs/architecture.md shows the same table."""

TOGETHER = {"F0", "F5", "F6"}
"""Floors of single modules that may import each other; elsewhere one package does not import its neighbour."""

# "nn and regularizers take tensors and graphs, never a dataset": they may not even know the floor below.
FORBIDDEN = {("nn", "data"), ("regularizers", "data")}

FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def runtime_imports(tree: ast.AST):
    """Yield the dotted names a module imports when it runs, inside functions too; imports for types do not count."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node):
            for other in node.orelse:
                yield from runtime_imports(ast.Module([other], []))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from runtime_imports(node)


def unit(dotted: str) -> str | None:
    """Return the top-level name inside the package that an import touches, None for everything else."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "mbgraph" and len(parts) > 1 and parts[1] in FLOOR_OF else None


@pytest.fixture(scope="module")
def trees():
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def test_every_module_has_a_floor():
    units = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES} - {"__init__", "__main__"}
    assert units <= set(FLOOR_OF), f"add to FLOORS and docs/architecture.md: {units - set(FLOOR_OF)}"


def test_modules_import_only_from_floors_below(trees):
    wrong = []
    for path, tree in trees.items():
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        for dotted in runtime_imports(tree):
            other = unit(dotted)
            if other is None or other == own:
                continue
            here, there = FLOOR_OF[own], FLOOR_OF[other]
            allowed = there < here or (here == there and here in TOGETHER)
            if not allowed or (own, other) in FORBIDDEN:
                wrong.append(f"{module_name(path)} ({here}) imports {dotted} ({there})")
    assert not wrong, "\n".join(wrong)


KERNEL_USERS = {
    "mbgraph.nn.relation",
    "mbgraph.nn.propagation",
    "mbgraph.evaluation.ranking",
    "mbgraph.models.twostage.kernel",
    "mbgraph.models.twostage.walks",
    "mbgraph.doctor",
}
"""Who calls the compiled stack; everybody else may only hold a `Workspace` for it."""


def test_the_compiled_stack_has_one_door(trees):
    """Outside, only names of ``mbgraph._kernels`` itself are imported, and only where a plain path stands beside."""
    wrong = []
    for path, tree in trees.items():
        name = module_name(path)
        if name.startswith("mbgraph._kernels"):
            continue
        for dotted in runtime_imports(tree):
            if not dotted.startswith("mbgraph._kernels"):
                continue
            if dotted.count(".") > 2 or (dotted != "mbgraph._kernels.Workspace" and name not in KERNEL_USERS):
                wrong.append(f"{name} imports {dotted}")
    assert not wrong, "\n".join(wrong)


def test_functions_are_compiled_in_one_place(trees):
    """numba's decorator raises where machine code cannot be kept; ours compiles at every start."""
    wrong = [
        module_name(path)
        for path, tree in trees.items()
        if path.name != "compiled.py" and {"numba.njit", "numba.jit"} & set(runtime_imports(tree))
    ]
    assert not wrong


def test_only_the_door_imports_dgl(trees):
    wrong = [
        module_name(path)
        for path, tree in trees.items()
        if path.name != "_dgl.py" and any(name.split(".")[0] == "dgl" for name in runtime_imports(tree))
    ]
    assert not wrong


def test_nothing_prints(trees):
    wrong = [
        f"{module_name(path)}:{node.lineno}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not wrong


PICKLES = "mbgraph.data.formats.pickles"
"""The one module that may import pickle: its unpickler finds stand-ins of its own and nothing else."""


def test_nothing_evaluates_or_unpickles(trees):
    wrong = []
    for path, tree in trees.items():
        if module_name(path).startswith("mbgraph.testing."):
            continue  # they pickle what they made themselves, to see that it can be
        names = {name.split(".")[0] for name in runtime_imports(tree)}
        if module_name(path) == PICKLES:
            names.remove("pickle")
            assert "def find_class" in ast.unparse(tree)
        wrong += [f"{module_name(path)} imports {name}" for name in names & {"pickle", "yaml", "dill", "marshal"}]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in {"eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler"}:
                    wrong.append(f"{module_name(path)}:{node.lineno} calls {called}")
                if called == "np.load" and "allow_pickle=False" not in ast.unparse(node):
                    wrong.append(f"{module_name(path)}:{node.lineno} loads without allow_pickle=False")
                if called == "torch.load" and "weights_only=True" not in ast.unparse(node):
                    wrong.append(f"{module_name(path)}:{node.lineno} loads without weights_only=True")
    assert not wrong, "\n".join(wrong)


READERS = ("mbgraph.data", "mbgraph.evaluation", "mbgraph.export", "mbgraph.run", "mbgraph.training", "mbgraph.schema")
"""Modules that read what somebody else may have written."""


def test_files_are_opened_in_one_place(trees):
    """`mbgraph.files.open_file` refuses pipes and devices; whoever opens a file otherwise may wait for ever."""
    wrong = []
    for path, tree in trees.items():
        name = module_name(path)
        if not name.startswith(READERS):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func).rpartition(".")[2]
            arguments = " ".join(map(ast.unparse, node.args))
            if called in {"read_text", "read_bytes"} or (called == "open" and re.search(r"'r\w*'", arguments)):
                wrong.append(f"{name}:{node.lineno} calls {ast.unparse(node.func)}")
    assert not wrong, "\n".join(wrong)


CONSOLES = "mbgraph.cli.consoles"
"""The one module that makes consoles of rich: text from data is plain text there."""


def test_markup_has_no_way_in(trees):
    """Nobody else makes a console, asks for markup, or takes rich's own column of text, which reads it."""
    wrong = []
    for path, tree in trees.items():
        name = module_name(path)
        if name == CONSOLES:
            continue
        found = set(runtime_imports(tree)) & {
            "rich.console.Console",
            "rich.progress.TextColumn",
            "rich.markup.escape",
            "rich.print",
        }
        wrong += [f"{name} imports {dotted}" for dotted in sorted(found)]
        wrong += [
            f"{name}:{node.lineno} says markup"
            for node in ast.walk(tree)
            if (isinstance(node, ast.keyword) and node.arg == "markup")
            or (isinstance(node, ast.Attribute) and node.attr == "from_markup")
        ]
    assert not wrong, "\n".join(wrong)


def test_errors_are_not_swallowed(trees):
    """No bare ``except:``, and no ``except Exception`` whose body does nothing."""
    wrong = [
        f"{module_name(path)}:{node.lineno}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or (
                ast.unparse(node.type) in {"Exception", "BaseException"}
                and all(isinstance(line, ast.Pass | ast.Continue) for line in node.body)
            )
        )
    ]
    assert not wrong


@pytest.mark.parametrize("folder", ["mbgraph", "tests"])
def test_no_file_is_longer_than_500_lines(folder):
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (REPOSITORY / folder).rglob("*.py")}
    assert not {str(path): length for path, length in lengths.items() if length > 500}


LIGHT = """\
import json, sys
for statement in json.loads(sys.argv[1]):
    for name in [name for name in sys.modules if name.split(".")[0] == "mbgraph"]:
        del sys.modules[name]
    exec(statement)
    if loaded := {"torch", "dgl"} & set(sys.modules):
        sys.exit(f"{statement} loads {loaded}")
"""


def test_light_modules_load_neither_torch_nor_dgl():
    """Each as the first of the package that is imported; one process, which ends at the first that loads them."""
    statements = [
        "import mbgraph",
        "import mbgraph.data",
        "import mbgraph.cli.main",
        "import mbgraph.doctor",
        "import mbgraph; mbgraph.load_dataset, mbgraph.perturb, mbgraph.from_events, mbgraph.alignment",
        *(f"import {module_name(path)}" for path in sorted((PACKAGE / "data").rglob("*.py"))),
    ]
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, json.dumps(statements)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_nn_and_regularizers_work_without_datasets():
    code = (
        "import mbgraph.nn, mbgraph.regularizers, sys\n"
        "sys.exit(str([name for name in sys.modules if name.startswith('mbgraph.data')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]", done.stderr


def test_the_architecture_page_shows_the_same_floors():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown = {
        floor: set(re.findall(r"`(\w+)`", cell))
        for floor, cell in re.findall(r"^\| (F\d) \| ([^|]+) \|", page, flags=re.MULTILINE)
    }
    assert shown == {floor: set(names) for floor, names in FLOORS.items()}
