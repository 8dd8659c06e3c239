"""A training that tests of the launchers start."""

from __future__ import annotations

from moaa.recipe.schema import Sft, StoreAddress
from moaa.train.job import Job

JOB = Job(
    kind="sft",
    numbers=Sft(),
    base="b",
    data="s3://b/r/data",
    output="s3://b/r/sft/0123456789abcdef",
    store=StoreAddress(root="s3://b/r"),
)
ON_GPU = Job(
    kind="sft",
    numbers=Sft(),
    base="b",
    data="s3://memory/root/data",
    output="s3://memory/root/sft/3f",
    store=StoreAddress(root="s3://memory/root"),
    device="cuda",
)
NAME = "moaa-sft-0123456789ab"
"""The object of the training on a cluster."""
