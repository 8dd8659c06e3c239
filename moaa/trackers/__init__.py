"""Trackers of experiments: a stage's numbers and its lineage, where a team compares its runs.

entry         what a stage has to tell: series by step, tags
live          the steps of a training as they come
tensorboard   event files on S3
mlflow        a server, by its REST protocol
wandb         Weights & Biases, by its package
"""

from moaa.trackers.entry import TrackerEntry, entry_of
from moaa.trackers.live import Live, live
from moaa.trackers.write import write

__all__ = ["Live", "TrackerEntry", "entry_of", "live", "write"]
