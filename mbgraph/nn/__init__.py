"""Building blocks over heterographs; none of them knows about datasets.

Shapes use one letter each: U users, I items, K behaviors, L layers, B batch rows, D dimensions.
"""

from mbgraph.nn.autoencoder import VariationalAutoencoder
from mbgraph.nn.fusion import mean_fusion
from mbgraph.nn.lightgcn import BehaviorEncoder, LightGCN
from mbgraph.nn.losses import bpr, mean_of_rows, triple_margin
from mbgraph.nn.propagation import propagate, propagate_each
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import Relations

__all__ = [
    "BehaviorEncoder",
    "LightGCN",
    "Relation",
    "Relations",
    "VariationalAutoencoder",
    "bpr",
    "mean_fusion",
    "mean_of_rows",
    "propagate",
    "propagate_each",
    "triple_margin",
]
