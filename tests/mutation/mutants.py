"""Small wrong changes of a Python source, one at a time: what a test suite is expected to notice.

Left alone are texts, annotations, imports, ``__all__`` and what stands under ``if TYPE_CHECKING``: a change there is
either no change of behavior or shows in the first import.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
NAMES = {
    one: other
    for pair in (("min", "max"), ("any", "all"), ("floor", "ceil"), ("minimum", "maximum"), ("argmin", "argmax"))
    for one, other in (pair, pair[::-1])
}


@dataclass(frozen=True)
class Mutant:
    """One wrong change: the bytes ``start`` to ``stop`` of a file are replaced by ``text``.

    ``before`` and ``after`` are the lines around it, without indentation and on one line.
    """

    line: int
    kind: str
    before: str
    after: str
    start: int
    stop: int
    text: str

    def apply(self, source: bytes) -> bytes:
        """Return the changed source."""
        return source[: self.start] + self.text.encode() + source[self.stop :]


def mutants_of(source: bytes) -> list[Mutant]:
    """Return every wrong change of a source, in the order of the file."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = {}
    for node, kind, text in _changes(ast.parse(source)):
        start, stop = (starts[at - 1] + column for at, column in _place(node))
        low, high = source.rfind(b"\n", 0, start) + 1, source.find(b"\n", stop) % (len(source) + 1)
        lines = (source[low:start] + middle + source[stop:high] for middle in (source[start:stop], text.encode()))
        before, after = (" ".join(line.decode().split()) for line in lines)
        found.setdefault((start, stop, text), Mutant(node.lineno, kind, before, after, start, stop, text))
    return sorted(found.values(), key=lambda mutant: (mutant.start, mutant.stop))


def _place(node: ast.expr | ast.stmt) -> tuple[tuple[int, int], tuple[int, int]]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    """Yield (node, kind of change, text in its place) for a tree."""
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):  # Python < 3.12 misplaces the parts of f-strings
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.stmt):
        yield from ((node, kind, text) for kind, text in _statements(node))
    if isinstance(node, ast.expr):
        yield from ((node, kind, text) for kind, text in _expressions(node))
    if isinstance(node, ast.If | ast.IfExp | ast.While) and isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
        yield node.test, "negate", f"not {ast.unparse(node.test)}"
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _changes(child)


def _statements(node: ast.stmt) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield "return", "return None"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "delete", "pass"
    if isinstance(node, ast.Raise | ast.Continue | ast.Break | ast.AugAssign):
        yield "delete", "pass"
    if isinstance(node, ast.Assign):
        target = node.targets[0]
        names = {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
        if isinstance(target, ast.Subscript | ast.Attribute) or (isinstance(target, ast.Name) and target.id in names):
            yield "delete", "pass"  # other names would just be missing
    if isinstance(node, ast.AugAssign):
        for other in SWAPS.get(type(node.op), ()):
            changed = copy(node)
            changed.op = other()  # type: ignore[assignment]
            yield "operator", ast.unparse(changed)


def _expressions(node: ast.expr) -> Iterator[tuple[str, str]]:
    def changed(**fields: object) -> str:
        other = copy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        return ast.unparse(other)

    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for swap in SWAPS.get(type(operator), ()):
                yield "comparison", f"({changed(ops=[*node.ops[:place], swap(), *node.ops[place + 1 :]])})"
    elif isinstance(node, ast.BinOp | ast.BoolOp):
        for swap in SWAPS.get(type(node.op), ()):
            yield "operator", f"({changed(op=swap())})"
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield "unary", f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", repr(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield from (("constant", repr(node.value + step)) for step in (1, -1))
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield from (("constant", repr(node.value * factor)) for factor in (2, 0.5) if node.value)
        if not node.value:
            yield "constant", "1.0"
    elif isinstance(node, ast.Call):
        for place, keyword in enumerate(node.keywords):
            if keyword.arg is not None:
                yield "keyword", changed(keywords=node.keywords[:place] + node.keywords[place + 1 :])
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield "name", NAMES[node.id]
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield "name", changed(attr=NAMES[node.attr])
