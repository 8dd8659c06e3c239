"""What people see while a stage runs: messages and progress."""

from moaa.progress.progress import Progress

__all__ = ["Progress"]
