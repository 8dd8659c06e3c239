"""Asking models for many conversations at once, resumable at any moment."""

from moaa.asking.run import ask_all

__all__ = ["ask_all"]
