"""What every model and regularizer must do, as test classes to inherit from. Needs pytest.

A new model's conformance test is two lines::

    from mbgraph.testing import TrainedRecommenderCases

    class TestMine(TrainedRecommenderCases):
        model = MyModel
"""

from mbgraph.testing.arrays import assert_matches, golden_dataset, golden_triples
from mbgraph.testing.recommenders import (
    LearnedRecommenderCases,
    RecommenderCases,
    TrainedRecommenderCases,
    recommender_cases,
)
from mbgraph.testing.regularizers import RegularizerCases, regularizer_cases

__all__ = [
    "LearnedRecommenderCases",
    "RecommenderCases",
    "RegularizerCases",
    "TrainedRecommenderCases",
    "assert_matches",
    "golden_dataset",
    "golden_triples",
    "recommender_cases",
    "regularizer_cases",
]
