"""The options that a model has when nobody names any: another default is another experiment.

After a change that is meant: ``python tests/models/test_defaults.py > tests/models/defaults.json``, and say why in the
changelog.
"""

import json
import sys
from pathlib import Path

import pytest

from mbgraph.models import MODELS

KNOWN = Path(__file__).with_name("defaults.json")


def defaults(name):
    """Return options, what the model says of its training, its regularizers, and what variants change of these."""
    kind = MODELS.get(name)

    def facts(options):
        made = {"options": options.plain()}
        if kind.trainable:
            made["training"] = options.training().plain()
            made["regularizers"] = {term.term: {"name": term.name, **term.plain()} for term in options.regularizers()}
        return made

    plain = facts(kind.Options())
    variants = {}
    for variant in getattr(kind.Options, "presets", {}):
        made = facts(kind.Options(variant=variant))
        variants[variant] = {
            part: {key: value for key, value in values.items() if plain[part].get(key) != value}
            for part, values in made.items()
        }
    return {**plain, "variants": variants}


def own_models():
    return sorted(name for name in MODELS if MODELS.get(name).__module__.startswith("mbgraph."))


@pytest.mark.parametrize("name", own_models())
def test_defaults_stay(name):
    assert defaults(name) == json.loads(KNOWN.read_text(encoding="utf-8"))[name]


def test_no_model_is_gone():
    assert own_models() == sorted(json.loads(KNOWN.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: defaults(name) for name in own_models()}, indent=1) + "\n")
