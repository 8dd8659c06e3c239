"""What stages pass to each other: a manifest with the names and digests
of the data's files on S3."""

from moaa.artifacts.artifact import Artifact
from moaa.artifacts.manifest import File, Manifest, Parent
from moaa.artifacts.output import Draft, Output

__all__ = ["Artifact", "Draft", "File", "Manifest", "Output", "Parent"]
