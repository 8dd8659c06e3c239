"""Checks that the models that get system messages support them.

An aggregator's proposals and a persona are in a system message. If a template left it out, nothing
would show this: the answers would only be worse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from moaa.chat.message import Message
from moaa.errors import MoaaError, without_stop
from moaa.preflight.finding import Finding, unseen
from moaa.preflight.run import PlannedRun
from moaa.recipe.schema import Member, Recipe
from moaa.weights import local, tokenizer
from moaa.weights.chat_template import ChatTemplate

CHECK: Final = "system role"
_SYSTEM: Final = "Answer in one word only."


def gets_system_messages(recipe: Recipe, model: str) -> bool:
    """Return whether a run sends this model a system message for any prompt: the proposals for an
    aggregator, or a persona."""
    generate, label = recipe.generate, recipe.label
    members: list[Member] = [*generate.writers]
    if generate.mixes:
        members += generate.mixture.proposers
    for labeller in (label.labeller, recipe.best_by):
        if labeller and (judge := label.judge_of(labeller)):
            members += [*judge.proposers, judge.aggregator]
    for judge in recipe.evaluation_judges:
        members += [*judge.proposers, judge.aggregator]
    personas = {member.model for member in members if member.system}
    return model in personas | ({generate.mixture.aggregator.model} if generate.mixes else set())


def findings(run: PlannedRun, *, hub_away: bool) -> Iterator[Finding]:
    """Render a system message with the chat templates of the models that the run starts.

    `hub_away`: the hub did not answer another check, and is not asked again.
    """
    for name in sorted(run.started):
        model = run.recipe.models[name]
        if not (model.system_role and gets_system_messages(run.recipe, name)):
            continue
        if hub_away and local.is_hub_id(model.source):
            continue
        try:
            template = tokenizer.chat_template(model, run.store)
        except MoaaError as error:
            yield unseen(CHECK, f"{name}: {str(error).splitlines()[0]}")
            continue
        problem = _problem(template)
        detail = f"{name}: its chat template {problem or 'takes system messages'}"
        yield Finding(CHECK, not problem, detail, f"set models.{name}.system_role: false")


def _problem(template: ChatTemplate) -> str:
    """Return what the template does wrong with a system message; empty if nothing."""
    from jinja2 import TemplateError

    system, user = Message(role="system", content=_SYSTEM), Message(role="user", content="Why?")
    try:
        text = template.render([system, user], prompt=True)
    except TemplateError as error:
        return f"refuses system messages ({without_stop(error)})"
    return "" if _SYSTEM in text else "leaves system messages out"
