"""Pluggable regularizers: one short class each, with a pure function behind it.

They read a `StepOutputs`, so any of them attaches to any model, or to a training loop of one's own.
"""

from mbgraph.regularizers.base import REGULARIZERS, Regularizer, changed, make_regularizer
from mbgraph.regularizers.infonce import InfoNCE, infonce, infonce_among, nt_xent
from mbgraph.regularizers.irm import IRMv1, IRMv2, gradient_variance, irm_penalty, squared_risks
from mbgraph.regularizers.l2 import L2, triple_norm
from mbgraph.regularizers.outputs import StepOutputs, once
from mbgraph.regularizers.rex import REx, risk_variance

__all__ = [
    "L2",
    "REGULARIZERS",
    "IRMv1",
    "IRMv2",
    "InfoNCE",
    "REx",
    "Regularizer",
    "StepOutputs",
    "changed",
    "gradient_variance",
    "infonce",
    "infonce_among",
    "irm_penalty",
    "make_regularizer",
    "nt_xent",
    "once",
    "risk_variance",
    "squared_risks",
    "triple_norm",
]
