"""How much a run will ask, train and cost: counted from the recipe, before anything is paid for.

lines        one `Line` a stage and model: calls, tokens, steps, dollars, GPU-hours
as_rows      the same as plain data, for the run's record and the report
comparison   the plan beside the paper's own figures
assumptions  what the figures rest on, and what is missing for more of them
uncounted    sources of which nobody knows how many prompts they hold
sizing       GPUs that each stage holds at once, and for how long: models together, or by turns
disk         room for weights, checkpoints and texts
table        all of it for a terminal

Calls follow from the method and are exact where nothing fails and no answers are the same (both
only lower them). Tokens rest on the assumptions in `recipe.plan`; hours and dollars on the rates
and prices that the recipe states.
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
