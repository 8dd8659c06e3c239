"""Published models: what their licences require, where they came from, their cards, their versions.

licences          what the licences of the run's models say about publishing
lineage           from which data, models and settings a model was made
rounds            which rounds of self-improvement made it
code              which code made it: version, commit, images
card              the model card: README.md of a version
data_set          the data that it was trained on, for `datasets` and TRL
versions          the immutable folders of published models
production        which version of a name is in production, and which ones were before
kubeflow          versions and production in a Kubeflow Model Registry
hub               versions and data in repositories of the Hugging Face hub
training_prompts  the prompts that a version was trained on
"""

from moaa.registry import data_set
from moaa.registry.card import card, data_card
from moaa.registry.hub import upload
from moaa.registry.kubeflow import mirror, put_into_production
from moaa.registry.licences import Findings, Use, findings, refusal
from moaa.registry.lineage import LINEAGE, lineage, lineage_of
from moaa.registry.rounds import rounds
from moaa.registry.training_prompts import contents_of, prompts_of
from moaa.registry.versions import MODELS, Version, version_at, versions, write_version

__all__ = [
    "LINEAGE",
    "MODELS",
    "Findings",
    "Use",
    "Version",
    "card",
    "contents_of",
    "data_card",
    "data_set",
    "findings",
    "lineage",
    "lineage_of",
    "mirror",
    "prompts_of",
    "put_into_production",
    "refusal",
    "rounds",
    "upload",
    "version_at",
    "versions",
    "write_version",
]
