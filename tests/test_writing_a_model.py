"""The page for model authors: what it builds passes the cases that it names."""

import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pytest

from mbgraph.models import MODELS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "writing-a-model.md"


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Make a module of the page, up to and with its test class, as an author would."""
    registered = dict(MODELS._entries)
    text = ""
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        if "mb.Trainer" not in block:  # test_docs runs those
            text += block
        if "TestWeightedMean" in block:
            break
    path = tmp_path_factory.mktemp("author") / "written_model.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield vars(module)
    MODELS._entries = registered
    del sys.modules[path.stem]


def test_the_model_of_the_page_passes_its_cases(names, tmp_path):
    cases = names["TestWeightedMean"]()
    ran = 0
    for name, case in inspect.getmembers(cases, inspect.ismethod):
        marks = {mark.name: mark for mark in getattr(case, "pytestmark", [])}
        if not name.startswith("test_") or "cuda" in marks or "demo" in name:
            continue
        ran += 1
        needed = inspect.signature(case).parameters
        if "count" in needed:
            for count in marks["parametrize"].args[1]:
                case(count)
        else:
            case(**({"tmp_path": tmp_path} if "tmp_path" in needed else {}))
    assert ran >= 18
