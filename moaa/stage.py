"""The frame of every stage: fingerprint -> reuse, or compute -> ledger -> manifest.

A stage is a function `(part, context) -> None` under `@stage(...)`. `part` is what it needs of the
recipe: its fingerprint is made of that, of its schema version and of the fingerprints of its
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
from moaa.context import Context, Row
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

__all__ = ["Context", "Metric", "Row", "Stage", "stage"]

P = TypeVar("P", bound=Part)
AGAIN = "again"
"""The fact of a result in which something failed that another run may get."""
OnPoint = Callable[[int, Mapping[str, object], str], None]
"""Takes the step, the numbers, and the part of a training that they are of."""
ContentOf = Callable[[Recipe, Store, Mapping[str, Artifact]], Mapping[str, str]]
"""Takes the stage's inputs too; returns what sources outside of the run hold, by their names."""
Metric = Callable[[str, float], None]
"""Takes the name and the value of one figure."""


@dataclass(frozen=True)
class Stage(Generic[P]):
    """A stage that can run; call `main`."""

    declaration: Declaration
    schema: int
    part_of: Callable[[Recipe], P]
    compute: Callable[[P, Context], None]
    content_of: ContentOf | None = None

    @property
    def name(self) -> str:
        return self.declaration.name

    def content(
        self, recipe: Recipe, store: Store, inputs: Mapping[str, Artifact] = MappingProxyType({})
    ) -> dict[str, str]:
        """What the sources that the stage reads from outside of the run hold now. By default: the
        models that it asks."""
        if self.content_of:
            return dict(self.content_of(recipe, store, inputs))
        return of_asked(recipe, self.declaration.models(recipe), store)

    def fingerprint(
        self,
        part: P,
        inputs: Mapping[str, Artifact],
        content: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Identity of the result: sha256 of the stage, its schema version, its part of the recipe,
        its inputs, and what its sources hold."""
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
        """Run as a component: read the manifests at `inputs`, write this stage's to `output` and a
        Markdown page to `summary`.

        `metric` takes the figures of the result (`moaa.report.figures`), new or reused. If the
        stage fails, the process exits with status 1 and one readable message, which the run record
        has too.
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
        """The manifest of the result, and whether it was there already. `ledger` counts; `on_point`
        is told of each step of a training."""
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
            self._forget_journal(store, uri)  # of what this one has answered meanwhile
            return Artifact.open(store, uri, fingerprint).manifest, True
        return manifest, False

    def _found(self, store: Store, fingerprint: str) -> Artifact | None:
        """The result that is there already."""
        try:
            return Artifact.open(store, f"{store.root}/{self.name}/{fingerprint}", fingerprint)
        except Missing:
            return None

    def _draft(self, part: P, context: Context, fingerprint: str) -> Draft:
        """What the manifest of a result says beside its files."""
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
        except StoreError as error:  # the result stands
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

    `content` says what sources outside of the run hold; by default the models that the stage asks.
    Raise `schema` whenever the same inputs give another result.
    """

    def wrap(compute: Callable[[P, Context], None]) -> Stage[P]:
        return Stage(declaration, schema, part, compute, content)

    return wrap


def _told(recipe: Recipe, stage: str, run_id: str, store: Store) -> Live | None:
    """What tells the recipe's trackers, if it has any."""
    if not recipe.runtime.trackers:
        return None
    from moaa.trackers import live

    return live(recipe.runtime.trackers, stage, recipe.name, run_id, store)


def _won(context: Context) -> Iterator[Parent]:
    """The winner of the round before, for a stage that asks or trains it: with it, the lineage of a
    model goes back to the first round."""
    recipe = context.recipe
    for name in sorted(made_by_run(recipe.models)):
        if start_of(name) != name and f"models.{name}" in context.content:
            uri = recipe.models[name].source
            yield Parent.of(f"models.{name}", Artifact.open(context.store, uri).manifest)


def _compared(content: Mapping[str, str]) -> str:
    """What was asked before a result is used again, for the log."""
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
