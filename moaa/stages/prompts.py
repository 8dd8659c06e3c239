"""The three sets of prompts: read from their sources, deduplicated, kept away from the evaluation prompts; all counted."""

from __future__ import annotations

from moaa import prompts as selection
from moaa import sources
from moaa.recipe.schema import Part, Prompts, Recipe, Source
from moaa.stage import Work, stage

SETS = ("evaluation", "preference", "sft")


class PromptsPart(Part):
    prompts: Prompts
    content: dict[str, str]
    """sha256 of each local file, so that a changed file is another input."""


def part_of(recipe: Recipe) -> PromptsPart:
    content = {s.source: digest for s in every_source(recipe.prompts) if (digest := sources.digest(s))}
    return PromptsPart(prompts=recipe.prompts, content=content)


def every_source(prompts: Prompts) -> list[Source]:
    return [source for name in SETS for source in getattr(prompts, name)]


@stage("prompts", kind="prompts", part=part_of, unit="prompts")
def prompts(part: PromptsPart, work: Work) -> None:
    found: dict[str, list[selection.PromptRow]] = {}
    for name in SETS:
        for source in getattr(part.prompts, name):
            work.progress.note(f"reading {source.source} for {name}")
            for raw in sources.rows(source, work.store):
                work.ledger.rows["in"] += 1
                work.progress.advance()
                found.setdefault(name, []).append(selection.read(raw, source))
    chosen = selection.build(found, part.prompts)
    for name, rows in chosen.kept.items():
        work.ledger.rows[name] += len(rows)
        work.ledger.rows["kept"] += len(rows)
        for row in rows:
            work.out.write(row.to_json(), table=name)
    for gone in chosen.rejected:
        work.ledger.rejected[gone.reason] += 1
        work.out.write(gone.to_json(), table="rejected")


main = prompts.main
