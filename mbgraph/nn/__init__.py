"""Building blocks over heterographs; none of them knows about datasets.

Shapes use one letter each: U users, I items, K behaviors, L layers, B batch rows, D dimensions.
"""

from mbgraph.nn.alignment import alignment_weights
from mbgraph.nn.autoencoder import VariationalAutoencoder, prior_divergence
from mbgraph.nn.behavior_attention import behavior_attention
from mbgraph.nn.dense import linear, normal, normed_layer, xavier
from mbgraph.nn.environments import environments
from mbgraph.nn.experts import Experts
from mbgraph.nn.fusion import mean_fusion, weighted_fusion
from mbgraph.nn.gates import context_gate
from mbgraph.nn.historical import TwoPasses
from mbgraph.nn.hypergraph import IntentEncoder
from mbgraph.nn.lightgcn import BehaviorEncoder, LightGCN
from mbgraph.nn.losses import bpr, label_entropies, mean_of_rows, non_sampling, sampled_softmax, softmax_among
from mbgraph.nn.propagation import hop, propagate, propagate_each
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import Relations
from mbgraph.nn.similarity import most_similar, swing
from mbgraph.nn.triples import negative_columns, part_triple, triple_at, triple_margin
from mbgraph.nn.typed import CrossTransformer, TypedFeedForward, TypedLinear

__all__ = [
    "BehaviorEncoder",
    "CrossTransformer",
    "Experts",
    "IntentEncoder",
    "LightGCN",
    "Relation",
    "Relations",
    "VariationalAutoencoder",
    "TypedFeedForward",
    "TypedLinear",
    "alignment_weights",
    "behavior_attention",
    "bpr",
    "hop",
    "context_gate",
    "environments",
    "label_entropies",
    "prior_divergence",
    "linear",
    "mean_fusion",
    "mean_of_rows",
    "most_similar",
    "non_sampling",
    "TwoPasses",
    "negative_columns",
    "normal",
    "normed_layer",
    "part_triple",
    "propagate",
    "propagate_each",
    "sampled_softmax",
    "softmax_among",
    "swing",
    "triple_at",
    "triple_margin",
    "weighted_fusion",
    "xavier",
]
