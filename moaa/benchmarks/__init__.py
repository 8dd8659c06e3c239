"""Benchmarks, one file each: who answers, how answers are judged, and which numbers result.

items.py       one question, and one turn of an answer
benchmark.py   what a benchmark is: `Benchmark`, and the data that it works with
entrants.py    who is measured: a model, the mixture, a judge
data.py        where the questions come from, and whether they are the published ones
table.py       every benchmark by its name in `evaluate.benchmarks`

A benchmark does no I/O. It asks models through `ask`, as the mixture and the judge do. The stage
`evaluate` (moaa/stages/evaluate.py) reads the questions, runs all benchmarks at the same time,
keeps answers and judgements for the next evaluation, and writes the tables.
"""

from moaa.benchmarks.benchmark import Benchmark, Played, Score
from moaa.benchmarks.entrants import Entrant
from moaa.benchmarks.items import EntrantAnswer, Item

__all__ = ["Benchmark", "Entrant", "EntrantAnswer", "Item", "Played", "Score"]
