"""How much a run will ask, train and cost: computed from the recipe, before anything is paid for.

lines        one `Line` a stage and model: calls, tokens, steps, dollars, GPU-hours
as_rows      the same as plain data, for the run's record and the report
comparison   the plan next to the paper's own numbers
assumptions  what the numbers assume, and what is missing for more of them
uncounted    sources with an unknown number of prompts
sizing       GPUs that each stage holds at once, and for how long: models together, or in turns
disk         room for weights, checkpoints and texts
table        all of it for a terminal

Calls follow from the method. They are exact if nothing fails and no two answers are the same (both
only lower them). Tokens depend on the assumptions in `recipe.plan`; hours and dollars depend on the
rates and prices in the recipe.
"""

from moaa.plan.lines import Line, as_rows, lines, of_rounds
from moaa.plan.sentences import assumptions, comparison, disk, uncounted
from moaa.plan.sizing import Size, sizing
from moaa.plan.terminal import table

__all__ = [
    "Line",
    "Size",
    "as_rows",
    "assumptions",
    "comparison",
    "disk",
    "lines",
    "of_rounds",
    "sizing",
    "table",
    "uncounted",
]
