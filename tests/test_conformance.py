"""Every registered model and regularizer under the cases that the package ships."""

from mbgraph.models import MODELS
from mbgraph.testing import recommender_cases

globals().update(recommender_cases())


def test_every_model_has_its_cases():
    assert {case.model for case in recommender_cases().values()} == set(MODELS)
