"""A run: configuration in, trained model, metrics and everything needed to repeat or continue it in one folder."""

from mbgraph.run.directory import Run, write_source
from mbgraph.run.fitting import fit, resume
from mbgraph.run.forecast import plan
from mbgraph.run.preparation import prepare_dataset

__all__ = ["Run", "fit", "plan", "prepare_dataset", "resume", "write_source"]
