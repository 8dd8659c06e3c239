"""A sweep: named variants of one recipe. It prices them before they run and compares them after.

document     the YAML of a sweep, and its recipes
sharing      which stages of two variants are the same
pricing      what the variants cost, stages that they share counted once
comparison   what came out, side by side: a table and a page
"""

from moaa.sweeps.comparison import VariantOutcome, outcome, page, table
from moaa.sweeps.document import Sweep, Variant, load
from moaa.sweeps.pricing import Priced, plan_table, priced
from moaa.sweeps.sharing import keys, may_start

__all__ = [
    "Priced",
    "Sweep",
    "Variant",
    "VariantOutcome",
    "keys",
    "load",
    "may_start",
    "outcome",
    "page",
    "plan_table",
    "priced",
    "table",
]
