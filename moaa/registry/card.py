"""The model card of a version: README.md with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from moaa.recipe.schema import Recipe
from moaa.registry.data_set import TABLES, DataSet
from moaa.registry.licences import Findings, table
from moaa.registry.versions import Version
from moaa.weights.local import is_hub_id


def card(recipe: Recipe, version: Version, lineage: Mapping[str, Any], licences: Findings) -> str:
    """Return README.md: YAML metadata, then what the model is, in Markdown."""
    shown = _common(recipe, version, lineage, licences) | {"weak": _weak(lineage)}
    return _page("card.md", _metadata(recipe, version, lineage, licences), shown)


def data_card(
    recipe: Recipe,
    version: Version,
    lineage: Mapping[str, Any],
    licences: Findings,
    data: DataSet,
) -> str:
    """Return README.md of the version's data set. Its metadata tell `datasets` where the tables
    are."""
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
        "target": recipe.models[recipe.target],
    }


def _page(template: str, metadata: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    head = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n{_templates().get_template(template).render(shown)}"


def _metadata(
    recipe: Recipe, version: Version, lineage: Mapping[str, Any], licences: Findings
) -> dict[str, Any]:
    target = recipe.models[recipe.target]
    licence = next(use.licence for use in licences.uses if use.model == recipe.target)
    found: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": licence if licence in ("apache-2.0", "mit", "gemma") else "other",
    }
    if licence in table() and found["license"] == "other":
        found |= {"license_name": licence, "license_link": table()[licence].source}
    if is_hub_id(target.source):
        found |= {"base_model": target.source, "base_model_relation": "finetune"}
    if datasets := sorted({each[4:] for each in lineage["prompts"] if each.startswith("hub:")}):
        found["datasets"] = datasets
    found["tags"] = ["mixture-of-agents-alignment", "dpo", "moaa"]
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
                    "args": {"low": score["low"], "high": score["high"], "n": score["n"]},
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


def _weak(lineage: Mapping[str, Any]) -> list[str]:
    """What the model does worse than before, as measured."""
    return [
        f"{each['title']}: {100 * score['value']:+.1f} points against {score['against']} "
        f"({100 * score['low']:+.1f} to {100 * score['high']:+.1f}, n {score['n']})"
        for each in lineage["scores"].values()
        for score in each["differences"]
        if score["entrant"] == lineage["decision"]["candidate"] and score["value"] < 0
    ]


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("moaa.registry", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
