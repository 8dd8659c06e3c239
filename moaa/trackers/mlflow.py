"""An MLflow server, by its REST protocol (2.0): one MLflow run for each run of moaa."""

from __future__ import annotations

import urllib.error
from collections.abc import Sequence
from typing import Any, Final

from moaa.rest import Server
from moaa.trackers.entry import TrackerEntry

MOST_METRICS: Final = 900
"""log-batch accepts 1000 metrics and tags together."""
PROTOCOL: Final = "api/2.0/mlflow"
"""Path of the protocol below the server's address."""
RUN_TAG: Final = "moaa.run"


def write(
    entry: TrackerEntry, server: Server, project: str, before: dict[str, set[int]] | None = None
) -> None:
    """Log the entry: the steps that the run does not have yet. MLflow keeps a step twice if it has
    another time, as after a stage that was stopped and goes on.

    `before`: the steps that each metric has from earlier attempts, for who writes again and again;
    what is missing in it is asked for and added.
    """
    experiment = _experiment(server, project)
    run = _run(server, experiment, entry)
    milliseconds = int(entry.made_s * 1000)
    there = {} if before is None else before
    for name in {_name(each.name) for each in entry.scalars} - there.keys():
        there[name] = _steps(server, run, name)
    metrics = [
        {"key": _name(name), "value": value, "timestamp": milliseconds, "step": step}
        for name, step, value in entry.scalars
        if step not in there[_name(name)]
    ]
    tags = [{"key": _name(key), "value": value[:5000]} for key, value in entry.tags.items()]
    for batch in _batches(metrics) or [[]]:
        server.ask("runs/log-batch", {"run_id": run, "metrics": batch, "tags": tags})
        tags = []


def _experiment(server: Server, name: str) -> str:
    try:
        found = server.ask("experiments/get-by-name", query={"experiment_name": name})
        return str(found["experiment"]["experiment_id"])
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
    return str(server.ask("experiments/create", {"name": name})["experiment_id"])


def _run(server: Server, experiment: str, entry: TrackerEntry) -> str:
    found = server.ask(
        "runs/search",
        {
            "experiment_ids": [experiment],
            "filter": f"tags.`{RUN_TAG}` = '{entry.run_id}'",
            "max_results": 1,
        },
    )
    if runs := found.get("runs"):
        return str(runs[0]["info"]["run_id"])
    body = {
        "experiment_id": experiment,
        "run_name": entry.run_id,
        "start_time": int(entry.made_s * 1000),
        "tags": [{"key": RUN_TAG, "value": entry.run_id}],
    }
    return str(server.ask("runs/create", body)["run"]["info"]["run_id"])


def _steps(server: Server, run: str, metric: str) -> set[int]:
    """Return the steps of a metric that the run has."""
    found: set[int] = set()
    query = {"run_id": run, "metric_key": metric}
    while True:
        try:
            page = server.ask("metrics/get-history", query=query)
        except urllib.error.HTTPError as error:
            if error.code != 404:  # how early servers say that the run has no such metric
                raise
            return found
        found |= {int(each.get("step", 0)) for each in page.get("metrics", ())}
        if not (token := page.get("next_page_token")):
            return found
        query["page_token"] = token


def _name(text: str) -> str:
    """Return the name with only characters that MLflow accepts."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in text)[:250]


def _batches(metrics: Sequence[dict[str, Any]]) -> list[Sequence[dict[str, Any]]]:
    return [metrics[i : i + MOST_METRICS] for i in range(0, len(metrics), MOST_METRICS)]
