"""What a person sees while a stage works."""

from moaa.progress.progress import Progress

__all__ = ["Progress"]
