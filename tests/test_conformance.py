"""Every registered model and regularizer under the cases that the package ships."""

import pytest

from mbgraph.models import MODELS
from mbgraph.regularizers import REGULARIZERS
from mbgraph.testing import recommender_cases, regularizer_cases

globals().update(recommender_cases())
globals().update(regularizer_cases())


DEMO, TRACED = "test_it_beats_popularity_on_the_demo_data", "test_the_step_compiles_without_breaks"
SLOW = {
    "TestBcipm": [DEMO],
    "TestMbssl": [DEMO, TRACED],
    "TestMissl": [DEMO, TRACED],
    "TestPkef": [DEMO],
    "TestSmbrec": [DEMO],
    "TestTwostage": [DEMO],
}
"""Cases that take long and stand among the slow tests."""


def _marked(case, name):
    """Return a case that calls the shipped one, marked."""

    def test(self):
        getattr(super(case, self), name)()

    return pytest.mark.slow(test)


for title, names in SLOW.items():
    shipped = globals()[title]
    globals()[title] = type(title, (shipped,), {})
    for name in names:
        setattr(globals()[title], name, _marked(globals()[title], name))
del shipped, title, names, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "title", [title for title, case in recommender_cases().items() if MODELS.get(case.model).trainable]
)
def test_the_derivative_compiles_too(title):
    case = globals()[title]()
    case.compiler = "aot_eager"
    case.test_the_step_compiles_without_breaks()


def test_every_model_has_its_cases():
    assert {case.model for case in recommender_cases().values()} == set(MODELS)


def test_every_regularizer_has_its_cases():
    cases = regularizer_cases()
    assert {case.regularizer for case in cases.values()} == set(REGULARIZERS)
    assert set(cases) <= set(globals())
    assert not set(cases) & set(recommender_cases())
