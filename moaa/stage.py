"""The frame of every stage: fingerprint -> reuse, or compute -> ledger -> manifest.

A stage is a function `(part, context) -> None` under `@stage(...)`. `part` is what it needs from
the recipe. Its fingerprint is made from the part, the schema version and the fingerprints of its
inputs. `context` is where it works: inputs, output, journal, ledger, progress, and the runtime
settings, which never change a result.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar

from moaa.artifacts import Artifact, Draft, Manifest, Output, Parent
from moaa.artifacts.owner import Owner
from moaa.attempt import recorded
from moaa.context import Context
from moaa.declaration import Declaration
from moaa.errors import ArtifactError, StoreError
from moaa.kubernetes.names import RUN_ENV
from moaa.ledger import Ledger
from moaa.lifeline import Superseded, supersede
from moaa.progress import Progress
from moaa.progress.messages import log, say
from moaa.recipe.rounds import made_by_run, start_of
from moaa.recipe.schema import Part, Recipe
from moaa.store import Missing, Store
from moaa.task import Task
from moaa.weights.content import of_asked, pinned

if TYPE_CHECKING:
    from moaa.trackers import Live

__all__ = ["Context", "Metric", "Stage", "stage"]

P = TypeVar("P", bound=Part)
AGAIN = "again"
"""The fact in a result in which something failed that another run may do."""
OnPoint = Callable[[int, Mapping[str, object], str], None]
"""Called with the step, the numbers, and the part of the training that they belong to."""
ContentOf = Callable[[Recipe, Store, Mapping[str, Artifact]], Mapping[str, str]]
"""Also takes the stage's inputs; returns the content of sources outside
of the run, by their names."""
Metric = Callable[[str, float], None]
"""Called with the name and the value of one figure."""


@dataclass(frozen=True)
class Stage(Generic[P]):
    """A stage that can run: call `main`."""

    declaration: Declaration
    schema: int
    part_of: Callable[[Recipe], P]
    compute: Callable[[P, Context], None]
    content_of: ContentOf | None = None

    @property
    def name(self) -> str:
        """The stage's name in the pipeline."""
        return self.declaration.name

    def content(
        self, recipe: Recipe, store: Store, inputs: Mapping[str, Artifact] = MappingProxyType({})
    ) -> dict[str, str]:
        """Return the current content of the sources that the stage reads from outside of the run.
        Default: the models that it asks."""
        if self.content_of:
            return dict(self.content_of(recipe, store, inputs))
        return of_asked(recipe, self.declaration.models(recipe), store)

    def fingerprint(
        self,
        part: P,
        inputs: Mapping[str, Artifact],
        content: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Return the identity of the result: sha256 of the stage, its schema version, its part of
        the recipe, its inputs, and the content of its sources."""
        identity: list[object] = [
            self.name,
            self.schema,
            part.model_dump(mode="json"),
            sorted((name, artifact.fingerprint) for name, artifact in inputs.items()),
        ]
        if content:
            identity.append(dict(content))
        text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def main(
        self,
        task: Task,
        inputs: Mapping[str, str] | None = None,
        output: str = "",
        summary: str = "",
        metric: Metric = lambda name, value: None,
    ) -> None:
        """Run as a component: read the manifests at `inputs`, write this stage's manifest to
        `output` and a Markdown page to `summary`.

        `metric` gets the figures of the result (`moaa.report.figures`), new or reused. If the stage
        fails, the process exits with status 1 and one readable message, which is in the run record
        too.
        """
        from moaa.report.figures import figures

        with recorded(self.declaration, task, summary) as attempt:
            artifacts = {
                name: _input(attempt.store, name, path) for name, path in (inputs or {}).items()
            }
            store, ledger = attempt.store, attempt.ledger
            told, run = _told(attempt.recipe, self.name, task.run_id, store), self.run
            with told or nullcontext():
                point = told.point if told else None
                manifest, reused = run(attempt.recipe, store, artifacts, ledger, point)
            attempt.done(manifest, reused=reused)
            if told:
                from moaa.trackers import entry_of

                attempt.also_counted(told.rest(entry_of(manifest, task.run_id)))
            if output:
                Path(output).write_text(manifest.to_text())
            for figure, value in figures(manifest.facts).items():
                metric(figure, value)

    def run(
        self,
        recipe: Recipe,
        store: Store,
        inputs: Mapping[str, Artifact],
        ledger: Ledger | None = None,
        on_point: OnPoint | None = None,
    ) -> tuple[Manifest, bool]:
        """Return the manifest of the result, and whether it was already there. `ledger` counts;
        `on_point` is called at each step of a training."""
        ledger = Ledger() if ledger is None else ledger
        part, content = self.part_of(recipe), self.content(recipe, store, inputs)
        fingerprint = self.fingerprint(part, inputs, content)
        while (found := self._found(store, fingerprint)) and found.manifest.facts.get(AGAIN):
            fingerprint = hashlib.sha256(f"{fingerprint} again".encode()).hexdigest()[:24]
        uri = f"{store.root}/{self.name}/{fingerprint}"
        log.debug(f"{self.name}: looking for {uri}; inputs {[a.uri for a in inputs.values()]}")
        if found:
            say(f"{self.name}: reused {uri}{_compared(content)}")
            return found.manifest, True
        who = f"run {os.environ.get(RUN_ENV, 'without a name')}"
        try:
            with Owner(store, uri, who, overtaken=supersede) as owner:
                if not owner.acquire(f"{uri}/manifest.json"):
                    say(f"{self.name}: reused {uri}{_compared(content)}")
                    return Artifact.open(store, uri, fingerprint).manifest, True
                known = pinned(recipe, content)
                with (
                    Progress(self.name, self.declaration.unit) as progress,
                    Output(store, uri, self.declaration.kind) as out,
                ):
                    progress.on_point = on_point
                    context = Context(inputs, out, store, known, ledger, progress, content)
                    self.compute(part, context)
                    manifest = out.commit(self._draft(part, context, fingerprint))
                self._forget_journal(store, uri)
        except Superseded:
            self._forget_journal(store, uri)  # this attempt may have written to it
            return Artifact.open(store, uri, fingerprint).manifest, True
        return manifest, False

    def _found(self, store: Store, fingerprint: str) -> Artifact | None:
        """Return the result if it is already there."""
        try:
            return Artifact.open(store, f"{store.root}/{self.name}/{fingerprint}", fingerprint)
        except Missing:
            return None

    def _draft(self, part: P, context: Context, fingerprint: str) -> Draft:
        """Return the fields of a result's manifest besides the files."""
        inputs, content = context.inputs, context.content
        return Draft(
            stage=self.name,
            name=context.recipe.name,
            fingerprint=fingerprint,
            parents=[
                *(Parent.of(name, inputs[name].manifest) for name in sorted(inputs)),
                *_won(context),
            ],
            part=part.model_dump(mode="json") | ({"content": content} if content else {}),
            ledger=context.ledger.to_json(),
            facts=context.facts | ({AGAIN: True} if context.again else {}),
        )

    def _forget_journal(self, store: Store, uri: str) -> None:
        try:
            store.delete_prefix(f"{uri}/journal/")
        except StoreError as error:  # the result is valid
            log.warning(
                f"{self.name}: {uri}/journal is no longer needed, but was not deleted: {error}"
            )


def stage(
    declaration: Declaration,
    *,
    part: Callable[[Recipe], P],
    content: ContentOf | None = None,
    schema: int = 1,
) -> Callable[[Callable[[P, Context], None]], Stage[P]]:
    """Make a stage of a function `(part, context)`.

    `content` returns what sources outside of the run hold; default: the models that the stage asks.
    Raise `schema` whenever the same inputs give another result.
    """

    def wrap(compute: Callable[[P, Context], None]) -> Stage[P]:
        return Stage(declaration, schema, part, compute, content)

    return wrap


def _told(recipe: Recipe, stage: str, run_id: str, store: Store) -> Live | None:
    """Return what reports to the recipe's trackers, if it has any."""
    if not recipe.runtime.trackers:
        return None
    from moaa.trackers import live

    return live(recipe.runtime.trackers, stage, recipe.name, run_id, store)


def _won(context: Context) -> Iterator[Parent]:
    """Yield the winner of the round before, for a stage that asks or trains it: with it, the
    lineage of a model goes back to the first round."""
    recipe = context.recipe
    for name in sorted(made_by_run(recipe.models)):
        if start_of(name) != name and f"models.{name}" in context.content:
            uri = recipe.models[name].source
            yield Parent.of(f"models.{name}", Artifact.open(context.store, uri).manifest)


def _compared(content: Mapping[str, str]) -> str:
    """Return what was compared before a result is reused, for the log."""
    if not content:
        return " (same recipe and inputs)"
    shown = [f"{name} ({held[:12]})" for name, held in list(content.items())[:5]]
    more = f" and {len(content) - 5} more" if len(content) > 5 else ""
    return f" (same recipe and inputs; unchanged: {', '.join(shown)}{more})"


def _input(store: Store, name: str, path: str) -> Artifact:
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        raise ArtifactError(
            f"input '{name}': there is no manifest at {path}. A cached Kubeflow task whose object "
            "was deleted looks like this: run again with caching off."
        ) from None
    return Artifact.open(store, text)
