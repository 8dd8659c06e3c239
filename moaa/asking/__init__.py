"""Ask models for many conversations at the same time; a stopped run can be continued.

Session   the models of a stage, how they run, and who counts their calls
ask_all   makes a record for each item, from the journal or from the models
Fleet     what `ask_all` needs from the engines that it starts
"""

from moaa.asking.fleet import Fleet
from moaa.asking.run import ask_all
from moaa.asking.session import Session, StartFleet

__all__ = ["Fleet", "Session", "StartFleet", "ask_all"]
