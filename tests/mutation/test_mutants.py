"""Which wrong changes are made, and where; each takes the place of its own text and nothing else."""

import ast
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import mutants_of

ROOT = Path(__file__).resolve().parents[2]


def changes(source):
    return {mutant.after for mutant in mutants_of(source.encode())}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("x = a < b", {"x = (a <= b)", "x = (a > b)"}),
        ("x = a == b is c", {"x = (a != b is c)", "x = (a == b is not c)"}),
        ("x = a in b", {"x = (a not in b)"}),
        ("x = a + b * c", {"x = (a - b * c)", "x = a + (b / c)"}),
        ("x = a // b - c", {"x = (a * b) - c", "x = (a // b + c)"}),
        ("x = a and b or c", {"x = (a or b) or c", "x = ((a and b) and c)"}),
        ("x = not a", {"x = (a)"}),
        ("x = -a", {"x = (a)"}),
        ("x = ~a & b", {"x = (a) & b", "x = (~a | b)"}),
        ("x = 3", {"x = 4", "x = 2"}),
        ("x = 0.5", {"x = 1.0", "x = 0.25"}),
        ("x = 0.0", {"x = 1.0"}),
        ("x = True", {"x = False"}),
        ("x = min(a, key=b)", {"x = max(a, key=b)", "x = min(a)"}),
        ("x = np.floor(a)", {"x = np.ceil(a)"}),
        ("f(a, b=c, **d)", {"pass", "f(a, **d)"}),
        ("x[a] = b", {"pass"}),
        ("x = f(x)", {"pass"}),
        ("x += a", {"pass", "x -= a"}),
        ("raise a", {"pass"}),
        ("x = a if b else c", {"x = a if not b else c"}),
    ],
)
def test_changes_of_one_line(line, wanted):
    assert changes(line) == wanted


def test_changes_of_blocks():
    source = "def f(a):\n    for x in a:\n        if x:\n            continue\n        return x\n"
    assert changes(source) == {"if not x:", "pass", "return None"}
    assert [mutant.line for mutant in mutants_of(source.encode())] == [3, 4, 5]


@pytest.mark.parametrize(
    "source",
    [
        '"""Text, 1 + 1."""',
        "from a import b",
        "def f(a: Literal[1] = b) -> Literal[2]: ...",
        "x: Literal[1] = a",
        "if TYPE_CHECKING:\n    x = 1",
        "x = f'{a + 1}'",
        "return_nothing = lambda: None",
        "def f():\n    return None",
    ],
)
def test_what_is_left_alone(source):
    assert changes(source) == set()


def test_lines_of_a_statement_on_several_and_of_letters_of_two_bytes():
    source = 'x = f(\n    "é",\n    n=1,  # ü\n)\ny = "é", a + b\n'.encode()
    made = {mutant.after: mutant for mutant in mutants_of(source)}
    assert set(made) == {"x = f('é')", "n=2, # ü", "n=0, # ü", 'y = "é", (a - b)'}
    call = made["x = f('é')"]
    assert (call.line, call.kind, call.before) == (1, "keyword", 'x = f( "é", n=1, # ü )')
    assert call.apply(source).decode() == "x = f('é')\ny = \"é\", a + b\n"


@settings(max_examples=15)
@given(st.sampled_from(sorted((ROOT / "mbgraph").rglob("*.py"))), st.randoms())
def test_changes_of_the_package_compile_and_change_one_place(path, random):
    source = path.read_bytes()
    made = mutants_of(source)
    for mutant in random.sample(made, min(3, len(made))):
        changed = mutant.apply(source)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
        assert changed.startswith(source[: mutant.start])
        assert changed.endswith(source[mutant.stop :])
        assert mutant.line == source.count(b"\n", 0, mutant.start) + 1
