"""MBSSL: behaviors that attend to each other, two contrasts among all nodes, and gradients kept in balance.

* `options`: what can be chosen, more than in any other model, as nearly every published detail can be turned off.
* `contrasts`: the contrasts of a batch's nodes, and who is no negative in them.
* `model`: the encoder, the main loss and the step.
"""

from mbgraph.models.mbssl.model import MBSSL

__all__ = ["MBSSL"]
