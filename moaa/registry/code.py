"""The code that made a model: the version and commit of moaa, and the images with their digests."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.metadata import distribution, version
from typing import Any, Final, get_args
from urllib.parse import unquote, urlsplit

from moaa.errors import ClusterError
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import PODS, Objects
from moaa.placement import images
from moaa.placement.images import Image
from moaa.progress.messages import log
from moaa.recipe.schema import Runtime

COMMIT_ENV: Final = "MOAA_COMMIT"
"""The variable that the build of an image sets; `unknown` outside of a checkout."""


def code(runtime: Runtime) -> dict[str, Any]:
    """Return `moaa` (version), `commit` (empty if it is not known; with `-dirty` if files were
    changed), and on a cluster `images`: the reference and digest of each by its name."""
    found: dict[str, Any] = {"moaa": version("moaa"), "commit": commit()}
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        found["images"] = images_of(runtime, _pods())
    return found


def commit() -> str:
    """Return the commit of the running code: that of the image, of the installed package, or of the
    folder of its source."""
    if (found := os.environ.get(COMMIT_ENV, "unknown")) != "unknown":
        return found
    origin = json.loads(distribution("moaa").read_text("direct_url.json") or "{}")
    if "vcs_info" in origin:
        return str(origin["vcs_info"]["commit_id"])
    if not origin.get("dir_info", {}).get("editable"):
        return ""
    folder = unquote(urlsplit(origin["url"]).path)
    command = ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def images_of(runtime: Runtime, pods: Objects) -> dict[str, dict[str, str]]:
    """Return the reference and digest of each image of the run, from the reference itself or from
    what these pods have run. Empty: none of them has run it."""
    found = {}
    for name in get_args(Image):
        reference = images.of(runtime, name)
        digest = reference.partition("@")[2] or _digest(reference, pods)
        found[name] = {"reference": reference, "digest": digest}
    return found


def _digest(reference: str, pods: Objects) -> str:
    """Return the digest that the newest of these pods has for a reference."""
    digests = {
        pod["metadata"]["creationTimestamp"]: each["imageID"].rpartition("@")[2]
        for pod in pods
        for spec in pod["spec"]["containers"]
        for each in pod.get("status", {}).get("containerStatuses") or ()
        if spec["image"] == reference and each["name"] == spec["name"] and each.get("imageID")
    }
    return digests[max(digests)] if digests else ""


def _pods() -> Objects:
    try:
        return Cluster.connect().list(PODS)
    except ClusterError as error:
        log.warning(f"the digests of the images are not known: {error}")
        return []
