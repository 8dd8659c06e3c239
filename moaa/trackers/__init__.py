"""Trackers of experiments: a stage's numbers and its lineage, where a team compares its runs.

entry         what a stage has to tell: series by step, tags
tensorboard   event files on S3
mlflow        a server, by its REST protocol
wandb         Weights & Biases, by its package
"""

from moaa.trackers.entry import Entry, entry_of
from moaa.trackers.write import write

__all__ = ["Entry", "entry_of", "write"]
