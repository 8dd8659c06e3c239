"""A sweep: named variants of one recipe, priced before they run and compared after.

document     the YAML of a sweep, and its recipes
sharing      which stages of two variants are the same
pricing      what the variants cost; shared stages are counted once
comparison   the results side by side: tables and a page
"""

from moaa.sweeps.comparison import VariantOutcome, outcome, page, tables
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
    "tables",
]
