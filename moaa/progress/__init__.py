"""What people see while a stage works: messages and progress."""

from moaa.progress.progress import Progress

__all__ = ["Progress"]
