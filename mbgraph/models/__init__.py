"""Models. Importing this package registers all of them."""

from mbgraph.models.base import MODELS, Batch, Encoded, Recommender, TrainingDefaults, build_model

__all__ = ["MODELS", "Batch", "Encoded", "Recommender", "TrainingDefaults", "build_model"]
