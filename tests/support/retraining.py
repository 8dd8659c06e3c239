"""Retrainings without training: versions in production, and runs that only leave their records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from moaa import home, records, registry
from moaa.artifacts import Artifact, Draft, Output
from moaa.pipelines.outcome import RunFailed
from moaa.recipe.load import Loaded, load_file
from moaa.registry import Version, production
from moaa.registry.production import ProductionEntry
from moaa.retrain import inputs
from moaa.stages.table import of_recipe
from tests.support.cli import called
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.records import record

Command = Callable[..., tuple[int, str, str]]
NAME = "aligned"
FOUND = [
    {"rule": "wins", "outcome": "pass", "about": "0.61 (0.55 to 0.67)", "needed": None},
    {"rule": "length", "outcome": "undecided", "about": "1.2 (1.1 to 1.4)", "needed": 1200},
    {"rule": "reasoning: a | b", "outcome": "fail", "about": "-0.10 <b>", "needed": None},
]
DECISION = {
    "candidate": "dpo",
    "against": "base",
    "power": "With 500 prompts this gate can see 5 points.",
}


def recipe_file(folder: Path, name: str = "mine", **more: Any) -> Path:
    """A recipe that publishes: the demo's, with prompts of its own beside it."""
    prompts = folder / "prompts.jsonl"
    own = {"name": "own", "source": str(prompts), "field": "prompt", "limit": 20}
    if not prompts.exists():
        prompts.write_text("".join(f'{{"prompt": "question {i}"}}\n' for i in range(9)))
    body = {
        "extends": str(DEMO),
        "name": name,
        "gate": {},
        "publish": {"name": NAME},
        "prompts": {"sft": [own]},
        **more,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(body))
    return path


def command(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    **more: Any,
) -> Command:
    """`moaa retrain` of `recipe_file` in this folder: options -> exit status, output, errors."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(home, "s3_environment", lambda endpoint: nullcontext("memory"))
    file = recipe_file(folder, **more)
    return lambda *options: called(monkeypatch, capsys, "retrain", str(file), *options)


def inputs_of(loaded: Loaded, store: MemoryStore) -> dict[str, str]:
    """Its inputs as they are now."""
    return inputs.current(loaded.recipe, of_recipe(loaded.recipe), store)


def put_version(
    store: MemoryStore,
    version: str,
    held: Mapping[str, str],
    text: str = "name: mine\n",
    why: str = "it wins",
) -> ProductionEntry:
    """A whole version that was made from these inputs, put into production."""
    made = Version.of(store, NAME, version)
    content = {
        name.removeprefix("prompts: "): digest
        for name, digest in held.items()
        if name not in (inputs.RECIPE, inputs.CODE)
    }
    lineage = {
        "recipe": {"name": "mine", "digest": held.get(inputs.RECIPE, ""), "text": text},
        "code": {"moaa": held.get(inputs.CODE, "")},
        "artifacts": [{"content": content}, {"content": {"production": "s3://an/earlier/one"}}],
    }
    with Output(store, f"{store.root}/dpo/{version}", "model") as out:
        model = Artifact(store, out.commit(Draft(stage="dpo", name=NAME, fingerprint=version)))
    texts = {registry.LINEAGE: json.dumps(lineage)}
    registry.write_version(made, model, texts, {})
    entry = ProductionEntry(version=version, uri=made.uri, why=why, since="2026-01-31T12:00:00Z")
    production.move(store, NAME, entry)
    return entry


def leave(
    store: MemoryStore,
    run: str,
    verdict: str,
    *,
    version: str = "v1",
    promoted: Mapping[str, Any] | None = None,
    number: int = 1,
) -> None:
    """The records of a finished run, or of one of its rounds. `promoted`: the facts of its stage
    promote, if it had one."""
    why = {"promote": "dpo passed all rules", "refuse": "dpo lost", "undecided": "too few"}[verdict]
    decision = {**DECISION, "verdict": verdict, "why": why, "findings": FOUND}
    uri = f"{store.root}/models/{NAME}/{version}"
    published = {"name": NAME, "version": version, "uri": uri} if verdict == "promote" else None
    facts: dict[str, dict[str, Any]] = {
        "gate": {"decision": decision},
        "publish": {"published": published, "why": f"{verdict}: {why}"},
    }
    if promoted is not None:
        facts["promote"] = dict(promoted)
    for stage, each in facts.items():
        made = record(stage, "done", manifest={"facts": each}, run_id=run, round=number)
        store.put(records.address(store, run, stage, number), records.to_json(made))
    store.put(f"{store.root}/runs/{run}/report.html", b"<html>the report</html>")


@dataclass
class Runs:
    """Takes the place of `local.run`: does what it is told, and remembers the runs' ids."""

    store: MemoryStore
    verdict: str = "promote"
    version: str = "v1"
    promoted: Mapping[str, Any] | None = None
    held: Mapping[str, str] = field(default_factory=dict)
    """What the version that it promotes was made from."""
    fails: BaseException | None = None
    ids: list[str] = field(default_factory=list)

    def __call__(self, loaded: Loaded, until: str | None, run_id: str) -> None:
        self.ids.append(run_id)
        if self.fails:
            raise self.fails
        leave(self.store, run_id, self.verdict, version=self.version, promoted=self.promoted)
        if (self.promoted or {}).get("promoted"):
            put_version(self.store, self.version, self.held or inputs_of(loaded, self.store))


def promoted(version: str = "v1") -> dict[str, Any]:
    """The facts of a stage promote that has done it."""
    return {"promoted": {"name": NAME, "version": version, "uri": "s3://u"}, "why": ""}


def failing(message: str) -> RunFailed:
    """What a run raises whose stage failed."""
    return RunFailed(message)


def loaded(path: Path) -> Loaded:
    """The recipe in this file."""
    return load_file(path)
