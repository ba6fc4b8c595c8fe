"""Every registered model and regularizer under the cases that the package ships."""

import pytest

from mbgraph.models import MODELS
from mbgraph.regularizers import REGULARIZERS
from mbgraph.testing import recommender_cases, regularizer_cases

globals().update(recommender_cases())
globals().update(regularizer_cases())


class TestMbssl(recommender_cases()["TestMbssl"]):
    """Conformance of mbssl, whose training takes a minute."""

    @pytest.mark.slow
    def test_it_beats_popularity_on_the_demo_data(self):
        super().test_it_beats_popularity_on_the_demo_data()


def test_every_model_has_its_cases():
    assert {case.model for case in recommender_cases().values()} == set(MODELS)


def test_every_regularizer_has_its_cases():
    cases = regularizer_cases()
    assert {case.regularizer for case in cases.values()} == set(REGULARIZERS)
    assert set(cases) <= set(globals())
    assert not set(cases) & set(recommender_cases())
