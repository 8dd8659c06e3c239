"""Trackers of experiments: they get a stage's numbers and lineage, so that a team can compare runs.

entry         what a stage reports: series by step, tags
live          the steps of a training as they come
tensorboard   event files on S3
mlflow        a server, by its REST protocol
wandb         Weights & Biases, by its package
"""

from moaa.trackers.entry import TrackerEntry, entry_of
from moaa.trackers.live import Live, live
from moaa.trackers.write import write

__all__ = ["Live", "TrackerEntry", "entry_of", "live", "write"]
