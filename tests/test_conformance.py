"""Every registered model and regularizer under the cases that the package ships."""

import pytest

from mbgraph.models import MODELS
from mbgraph.regularizers import REGULARIZERS
from mbgraph.testing import recommender_cases, regularizer_cases

globals().update(recommender_cases())
globals().update(regularizer_cases())


def _slow(title):
    """Return a class whose training on the demo data stands among the slow tests."""

    class Cases(globals()[title]):
        @pytest.mark.slow
        def test_it_beats_popularity_on_the_demo_data(self):
            super().test_it_beats_popularity_on_the_demo_data()

    Cases.__name__ = Cases.__qualname__ = title
    return Cases


for slow in ("TestBcipm", "TestMbssl", "TestMissl", "TestPkef", "TestSmbrec"):
    globals()[slow] = _slow(slow)
del slow


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
