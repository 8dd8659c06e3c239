"""Checks whether the licences of the run's models allow the trained model to be published."""

from __future__ import annotations

from collections.abc import Iterator

from moaa import registry
from moaa.preflight.finding import Finding, unseen
from moaa.recipe.schema import Recipe


def findings(recipe: Recipe) -> Iterator[Finding]:
    """Yield the findings about licences; a conflict fails only a run that publishes."""
    found = registry.findings(recipe)
    if reason := registry.refusal(recipe, found):
        yield Finding("licences", False, reason, "correct the recipe's `publish`, or its models")
        return
    if found.conflicts:
        names = "; ".join(f"{use.model}: {use.why}" for use in found.conflicts)
        accepted = recipe.publish and recipe.publish.accept_licence_conflict
        said = f"accepted: {accepted}" if accepted else "the model must not be published"
        yield Finding("licences", True, f"{said}; {names}")
        return
    if found.unknown:
        names = ", ".join(f"{use.model} ({use.published_name})" for use in found.unknown)
        yield unseen(
            "licences", f"not known of {names}", "name it in `models.NAME.licence` if you know it"
        )
        return
    asked = "; ".join((*(f"show '{line}'" for line in found.show), *found.duties))
    yield Finding("licences", True, asked or "they ask for nothing but notices")
