"""Building blocks over DGL heterographs; none of them knows about datasets.

Shapes use one letter each: U users, I items, K behaviors, L layers, B batch rows, D dimensions.
"""

from mbgraph.nn.fusion import mean_fusion
from mbgraph.nn.lightgcn import BehaviorEncoder, LightGCN, propagate_layers
from mbgraph.nn.losses import bpr
from mbgraph.nn.propagation import Relation, relations

__all__ = ["BehaviorEncoder", "LightGCN", "Relation", "bpr", "mean_fusion", "propagate_layers", "relations"]
