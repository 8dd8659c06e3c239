"""What travels between stages: a manifest that names the data's files on S3 with their digests."""

from moaa.artifacts.artifact import Artifact
from moaa.artifacts.manifest import File, Manifest, Parent
from moaa.artifacts.output import Draft, Output

__all__ = ["Artifact", "Draft", "File", "Manifest", "Output", "Parent"]
