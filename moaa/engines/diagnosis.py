"""Says in words why a leased model does not answer."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from moaa.engines.server import COLOUR, tail
from moaa.errors import ClusterError, without_stop
from moaa.kubernetes import names, pods
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import Object, Objects

LOG_LINES = 400
_REMEDIES = {
    pods.UNSCHEDULABLE: "Free the pool, or set runtime.engines.schedule to 'by-turns' to run the "
    "ensemble one model at a time.",
    "ImagePull": "Correct the image in the chart's values, or its pull secret.",
    "InvalidImageName": "Correct the image in the chart's values.",
    "ErrImageNeverPull": "Load the image on the nodes, or let the chart's pull policy fetch it.",
    "CreateContainerConfigError": "Make the Secret or ConfigMap that it names.",
    "OOMKilled": "Raise the model's memory in the chart's values.",
    "no pod can be created": "Ask for less, or have the namespace's quota or policy changed.",
}


def state(deployment: Object, found: Objects, events: Mapping[str, str], *, asking: str) -> str:
    """Return what a model without an endpoint waits for. `asking`: where its first answer is asked
    for, if it is; `events`: the newest event of each pod that is being created."""
    now = time.time()
    states = [
        pods.waits_for(pod, now, events.get(pod["metadata"]["name"], "")) for pod in _current(found)
    ]
    states = [each for each in states if each]
    if states:
        return pods.summary(states)
    if asking or _current(found):
        return f"ready; its first answer{asking}"
    return pods.why_no_pods(deployment)


def diagnosis(cluster: Cluster, deployment: str, state: str, found: Objects) -> str:
    """Return why its pods do not answer: state, remedy, end of the log, events.
    It waits for the API."""
    pod = max(
        _current(found),
        key=lambda each: (bool(pods.waits_for(each, 0.0)), pods.restarts(each)),
        default=None,
    )
    text = f"Deployment {deployment} in namespace '{cluster.namespace}': {state}."
    died = pods.death(pod) if pod else ""
    if died and died.rpartition("' ")[2] not in state:
        text += f" Before that, {died}."
    text += "".join(f" {what}" for sign, what in _REMEDIES.items() if sign in f"{state} {died}")
    try:
        text += _log(cluster, pod) if pod else ""
        shown = str(pod["metadata"]["name"]) if pod else deployment
        if lines := pods.latest_events(cluster.events(shown)):
            text += f"\n  events of {shown}:" + "".join(f"\n    {line}" for line in lines)
    except ClusterError as error:
        text += f"\n  (the rest could not be read: {without_stop(error)})"
    return text


def no_deployment(models: Collection[str], namespace: str) -> str:
    """Return the error that no Deployment serves these models, and how to install one."""
    named = ", ".join(f"'{model}'" for model in models)
    labels = ", ".join(f"{names.MODEL}={names.dns(model)}" for model in models)
    return (
        f"no Deployment in namespace '{namespace}' serves {named} (label {labels}). Install the "
        "recipe's ensemble:\n"
        "  moaa recipe helm-values RECIPE.yaml > values.yaml\n"
        f"  helm upgrade --install ensemble helm/moaa-serving --namespace {namespace} "
        "--values values.yaml"
    )


def _log(cluster: Cluster, pod: Object) -> str:
    container = pods.failing_container(pod)
    if container is None:
        return ""
    name = pod["metadata"]["name"]
    text = cluster.log(name, container, lines=LOG_LINES, previous=pods.restarts(pod) > 0)
    text = text or cluster.log(name, container, lines=LOG_LINES)
    lines = tail(COLOUR.sub("", text).rstrip().splitlines())
    if not lines:
        return ""
    return f"\n  the end of the log of {name} ({container}):" + "".join(
        f"\n    {line}" for line in lines
    )


def _current(found: Objects) -> Objects:
    """Return the pods that are not being deleted; all pods if every one is."""
    staying = [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]
    return sorted(staying or found, key=lambda pod: pod["metadata"]["name"])
