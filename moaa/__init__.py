"""Mixture of Agents Alignment: a committee of open models writes data, trains,
judges and trains again."""

__version__ = "0.1.0"
