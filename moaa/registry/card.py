"""The model card of a version: README.md with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from moaa.recipe.rounds import start_of
from moaa.recipe.schema import Recipe
from moaa.registry.data_set import TABLES, DataSet, address
from moaa.registry.licences import Findings, table
from moaa.registry.versions import Version
from moaa.registry.weaknesses import weaknesses
from moaa.weights.local import is_hub_id

HUB_NAMES: Final = ("apache-2.0", "mit", "gemma", "llama2", "llama3", "llama3.1", "llama3.2")
"""Licences whose name in our table is also the hub's name."""


def card(recipe: Recipe, version: Version, lineage: Mapping[str, Any], licences: Findings) -> str:
    """Return README.md: YAML metadata, then what the model is, in Markdown."""
    shown = _common(recipe, version, lineage, licences) | {
        "weak": weaknesses(lineage),
        "how": _how(lineage["data"]),
        "hub": recipe.publish.hub if recipe.publish else None,
        "data": _data(recipe, version),
    }
    return _page("card.md", _metadata(recipe, version, lineage, licences), shown)


def data_card(
    recipe: Recipe,
    version: Version,
    lineage: Mapping[str, Any],
    licences: Findings,
    data: DataSet,
) -> str:
    """Return README.md of the version's data set.
    Its metadata tell `datasets` where the tables are."""
    shown = _common(recipe, version, lineage, licences) | {
        "uri": data.uri,
        "tables": [table for table in TABLES if table.name in data.counts],
        "counts": data.counts,
        "source": recipe.generate.source,
        "labeller": recipe.label.labeller,
    }
    metadata: dict[str, Any] = {
        "pretty_name": f"{version.name} {version.version}",
        "license": "other",
        "license_name": "licences-of-the-prompts-and-of-the-models-below",
        "task_categories": ["text-generation"],
        "tags": ["mixture-of-agents-alignment", "trl", "moaa"],
        "configs": [
            {"config_name": name, "data_files": f"data/{name}-*.parquet"} for name in data.counts
        ],
    }
    metadata["configs"][0]["default"] = True
    return _page("data_card.md", metadata, shown)


def _common(
    recipe: Recipe, version: Version, lineage: Mapping[str, Any], licences: Findings
) -> dict[str, Any]:
    return {
        "version": version,
        "lineage": lineage,
        "uses": licences.uses,
        "licences": table(),
        "show": licences.show,
        "duties": licences.duties,
        "accepted": recipe.publish.accept_licence_conflict if recipe.publish else None,
        "target": recipe.models[start_of(recipe.target)],
        "start": start_of(recipe.target),
        "rounds": lineage["rounds"],
    }


def _page(template: str, metadata: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    head = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n{_templates().get_template(template).render(shown)}"


def _metadata(
    recipe: Recipe, version: Version, lineage: Mapping[str, Any], licences: Findings
) -> dict[str, Any]:
    target = recipe.models[start_of(recipe.target)]
    found: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **_licence(recipe, licences),
    }
    if is_hub_id(target.source):
        found |= {"base_model": target.source, "base_model_relation": "finetune"}
    # Without `hub:`, and without the file if one is given.
    names = {"/".join(each[4:].split("/")[:2]) for each in lineage["prompts"] if each[:4] == "hub:"}
    if recipe.publish and recipe.publish.hub and recipe.publish.hub.data_repository:
        names.add(recipe.publish.hub.data_repository)
    if data_sets := sorted(filter(is_hub_id, names)):
        found["datasets"] = data_sets
    found["tags"] = ["mixture-of-agents-alignment", lineage["decision"]["candidate"], "moaa"]
    results = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"type": name, "name": each["title"]},
            "metrics": [
                {
                    "type": score["metric"],
                    "value": round(score["value"], 6),
                    "name": f"{score['metric']} of {score['entrant']}"
                    + (f" against {score['against']}" if score["against"] else ""),
                    "args": {
                        "low": score["low"],
                        "high": score["high"],
                        "n": score["n"],
                        **({"judge": each["judge"]} if each["judge"] else {}),
                    },
                }
            ],
        }
        for name, each in lineage["scores"].items()
        for score in each["main"]
        if score["entrant"] == lineage["decision"]["candidate"]
    ]
    if results:
        found["model-index"] = [{"name": version.name, "results": results}]
    return found


def _licence(recipe: Recipe, licences: Findings) -> dict[str, str]:
    """Return the target's licence by the hub's name;
    `other` if a teacher's terms must be passed on."""
    own = next(use.licence for use in licences.uses if use.model == recipe.target)
    passed_on = {use.licence for use in licences.uses if use.outcome in ("conditions", "conflict")}
    if own in HUB_NAMES and passed_on <= {own}:
        return {"license": own}
    found = {"license": "other"}
    if names := [own, *sorted(passed_on - {own})] if own else sorted(passed_on):
        found["license_name"] = "-and-".join(names)
    if own in table():
        found["license_link"] = table()[own].source
    return found


def _data(recipe: Recipe, version: Version) -> str:
    """Return where the training data are, if they are published;
    with the hub's name if they are there."""
    publish = recipe.publish
    if publish is None or not publish.data:
        return ""
    if publish.hub and publish.hub.data_repository:
        return publish.hub.data_repository
    return address(version)


def _how(data: Mapping[str, Any]) -> str:
    """Return a sentence: who wrote the answers of the SFT data."""
    if mixture := data["mixture"]:
        proposers, layers = len(mixture["proposers"]), mixture.get("layers", 2)
        of = f"a mixture of {proposers} proposers and an aggregator, in {layers} layers"
        if data["source"] == "mixture":
            return f"answered by {of}."
        return f"each the best answer of {of}."
    writers = ", ".join(dict.fromkeys(data["writers"]))
    return {
        "teacher": f"answered by {writers}.",
        "random": f"each answered by one of {writers}, by chance.",
        "all": f"answered by each of {writers}.",
    }.get(data["source"], "with the answers of the data set itself.")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("moaa.registry", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = _number
    return environment
