"""What a run is known by: its configuration, its data, and the source of what computes."""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import json
import tokenize
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import mbgraph
from mbgraph.config import FitConfig

__all__ = ["code_hash", "data_code_hash", "digest", "run_address", "significant"]

_PACKAGE = Path(mbgraph.__file__).parent
_COMPUTES = (
    "keys.py",
    "random.py",
    "_kernels",
    "nn",
    "regularizers",
    "evaluation/evaluate.py",
    "evaluation/metrics.py",
    "evaluation/options.py",
    "evaluation/ranking.py",
    "evaluation/scorers.py",
    "training/callbacks.py",
    "training/trainer.py",
    "data/dataset.py",
    "data/interactions.py",
    "data/masks.py",
    "models/base.py",
    "models/options.py",
    "models/batch_rule.py",
    "models/batches.py",
    "models/context.py",
    "models/extended.py",
    "models/history.py",
    "models/rules.py",
    "models/triples.py",
    "run/fitting.py",
    "run/preparation.py",
)
"""What decides the figures of a run on given data, beside the model's own modules."""
_PREPARES = (
    "keys.py",
    "random.py",
    "data/interactions.py",
    "data/perturb.py",
    "data/planted.py",
    "data/protocols.py",
    "data/splits.py",
    "data/synthetic.py",
    "run/preparation.py",
    "bench/sources.py",
)
"""What decides the data that come of a source."""


def digest(value: Any) -> str:
    """Return the SHA-256 of plain values, the order of keys aside."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def significant(source: str) -> str:
    r"""Return a module's text without what computes nothing: comments, docstrings, empty lines, spaces at the end.

    Examples
    --------
    >>> significant('def f():\n    "Doc."\n\n    return 1  # why\n')
    'def f():\n    return 1'
    """
    lines = source.splitlines()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for entry in body if isinstance(body, list) else []:
            if (
                isinstance(entry, ast.Expr)
                and isinstance(entry.value, ast.Constant)
                and isinstance(entry.value.value, str)
            ):
                assert entry.end_lineno is not None
                lines[entry.lineno - 1 : entry.end_lineno] = [""] * (entry.end_lineno - entry.lineno + 1)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def code_hash(model: type) -> str:
    """Return the hash of the source of everything that decides a model's figures.

    Looked at once per process: files that change while it runs are not those that it has loaded.
    """
    return _code_hash(model)


@cache
def _code_hash(model: type) -> str:
    return _hash_of((*_files(_COMPUTES), *_model_files(model)))


@cache
def data_code_hash() -> str:
    """Return the hash of the source of everything that decides what becomes of a dataset."""
    return _hash_of(_files(_PREPARES))


def run_address(config: FitConfig, content_hash: str, num_items: int) -> str:
    """Return the SHA-256 that a run is filed under.

    Where it runs is no part of it: neither the dataset's path nor threads or device.
    """
    plain = config.resolve(num_items).plain()
    for name in ("dataset", "threads", "device"):
        plain.pop(name, None)
    return digest({"config": plain, "data": content_hash, "code": code_hash(config.model_class)})


def _files(names: Iterable[str]) -> tuple[Path, ...]:
    paths = [_PACKAGE / name for name in names]
    return tuple(file for path in paths for file in ([path] if path.suffix else sorted(path.rglob("*.py"))))


@cache
def _model_files(model: type) -> tuple[Path, ...]:
    """Return the modules of a model's classes and of their options, and the models that those import."""
    options: type = getattr(model, "Options", object)
    classes = [*model.__mro__, *options.__mro__]
    found = [inspect.getsourcefile(each) for each in classes if each.__module__.split(".")[0] not in _FOREIGN]
    files = {Path(name) for name in found if name is not None}
    waiting = list(files)
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop().read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mbgraph.models."):
                module = _PACKAGE.joinpath(*str(node.module).split(".")[1:])
                named = [module / f"{alias.name}.py" for alias in node.names]
                for other in (module.with_suffix(".py"), module / "__init__.py", *named):
                    if other.is_file() and other not in files:
                        files.add(other)
                        waiting.append(other)
    return tuple(sorted(files))


_FOREIGN = ("builtins", "torch", "pydantic", "abc", "typing")


@cache
def _hash_of(files: tuple[Path, ...]) -> str:
    parts = hashlib.sha256()
    for file in sorted({file.resolve() for file in files}):
        name = file.relative_to(_PACKAGE.resolve()) if file.is_relative_to(_PACKAGE.resolve()) else Path(file.name)
        text = significant(file.read_text(encoding="utf-8"))
        parts.update(f"{name.as_posix()}\n{text}\n".encode())
    return parts.hexdigest()
