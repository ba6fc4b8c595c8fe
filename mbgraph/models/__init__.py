"""Models. Importing this package registers all of them."""

from mbgraph.models.base import MODELS, Batch, Encoded, Recommender, TrainingDefaults, build_model
from mbgraph.models.conversion import Conversion
from mbgraph.models.lightgcn import LightGCN
from mbgraph.models.popularity import Popularity
from mbgraph.models.rmbrec import RMBRec

__all__ = [
    "MODELS",
    "Batch",
    "Conversion",
    "Encoded",
    "LightGCN",
    "Popularity",
    "RMBRec",
    "Recommender",
    "TrainingDefaults",
    "build_model",
]
