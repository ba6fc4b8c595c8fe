"""Models. Importing this package registers all of them."""

from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded, Recommender, build_model
from mbgraph.models.batches import Batches, TripleBatches
from mbgraph.models.bcipm import BCIPM
from mbgraph.models.context import StepContext
from mbgraph.models.conversion import Conversion
from mbgraph.models.crgcn import CRGCN
from mbgraph.models.extended import BCIPMBatch, ExtendedBatches, UIPLBatch
from mbgraph.models.item_cosine import ItemCosine
from mbgraph.models.lightgcn import LightGCN
from mbgraph.models.mbcgcn import MBCGCN
from mbgraph.models.mbssl import MBSSL
from mbgraph.models.missl import MISSL
from mbgraph.models.options import CascadeOptions, EmbeddingOptions, ModelOptions, TrainingOptions
from mbgraph.models.pkef import PKEF
from mbgraph.models.popularity import Popularity
from mbgraph.models.ragged import RaggedBatch, RaggedBatches, UserBatch, UserBatches
from mbgraph.models.rmbrec import RMBRec
from mbgraph.models.rules import GradientBalance, UpdateRule
from mbgraph.models.sequences import SequenceBatch, SequenceBatches, Sequences
from mbgraph.models.simgcl import SimGCL
from mbgraph.models.smbrec import SMBRec
from mbgraph.models.triples import ANY, TripleBatch
from mbgraph.models.twostage import EVIDENCE, RETRIEVERS, Evidence, Retriever, TwoStage
from mbgraph.models.uipl import UIPL

__all__ = [
    "ANY",
    "BCIPM",
    "CRGCN",
    "MBCGCN",
    "MBSSL",
    "MISSL",
    "EVIDENCE",
    "RETRIEVERS",
    "MODELS",
    "UIPL",
    "BCIPMBatch",
    "PKEF",
    "Batches",
    "CascadeOptions",
    "Conversion",
    "EmbeddingOptions",
    "EmbeddingRecommender",
    "Encoded",
    "Evidence",
    "GradientBalance",
    "ExtendedBatches",
    "ItemCosine",
    "LightGCN",
    "ModelOptions",
    "Popularity",
    "RMBRec",
    "RaggedBatch",
    "RaggedBatches",
    "Recommender",
    "Retriever",
    "SMBRec",
    "SequenceBatch",
    "SequenceBatches",
    "Sequences",
    "SimGCL",
    "StepContext",
    "TrainingOptions",
    "TripleBatch",
    "TripleBatches",
    "TwoStage",
    "UIPLBatch",
    "UpdateRule",
    "UserBatch",
    "UserBatches",
    "build_model",
]
