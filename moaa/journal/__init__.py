"""The memory of a stage on S3: replies and rows that are neither asked nor computed twice, and what
was used for them."""

from moaa.journal.journal import Journal
from moaa.journal.usage import Usage

__all__ = ["Journal", "Usage"]
