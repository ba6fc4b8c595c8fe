"""The two-stage model. Importing this package registers it, its evidence and its retrievers.

A package of its own adds evidence by an entry point in the group ``mbgraph.evidence`` and a retriever by one in
``mbgraph.retrievers``, as it adds a model.
"""

from mbgraph.models.twostage.candidates import Candidates
from mbgraph.models.twostage.counts import Counts, UserLevel
from mbgraph.models.twostage.dot import DotProducts
from mbgraph.models.twostage.evidence import EVIDENCE, Evidence
from mbgraph.models.twostage.facts import Facts, Setting
from mbgraph.models.twostage.kernel import KernelConversion
from mbgraph.models.twostage.model import TwoStage
from mbgraph.models.twostage.options import TwoStageOptions
from mbgraph.models.twostage.paths import Paths
from mbgraph.models.twostage.patterns import Patterns
from mbgraph.models.twostage.recency import Recency
from mbgraph.models.twostage.retrievers import RETRIEVERS, Retriever
from mbgraph.models.twostage.scorer import TwoStageScorer

__all__ = [
    "EVIDENCE",
    "RETRIEVERS",
    "Candidates",
    "Counts",
    "DotProducts",
    "Evidence",
    "Facts",
    "KernelConversion",
    "Paths",
    "Patterns",
    "Recency",
    "Retriever",
    "Setting",
    "TwoStage",
    "TwoStageOptions",
    "TwoStageScorer",
    "UserLevel",
]
