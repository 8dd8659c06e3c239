"""What travels between stages: a manifest that names the data's files on S3 with their digests."""

from moaa.artifacts.artifact import Artifact, Output
from moaa.artifacts.manifest import File, Manifest, Parent

__all__ = ["Artifact", "File", "Manifest", "Output", "Parent"]
