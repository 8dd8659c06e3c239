"""The memory of a stage: replies and rows that are not asked or computed a second time, and what
they used.

Journal         what asking needs from a journal
S3Journal       the journal of a stage: a later attempt continues where this one stopped
MemoryJournal   a journal for work that is not continued later
Usage           what each attempt used of its models
"""

from moaa.journal.journal import Journal, MemoryJournal
from moaa.journal.s3 import S3Journal
from moaa.journal.usage import Usage

__all__ = ["Journal", "MemoryJournal", "S3Journal", "Usage"]
