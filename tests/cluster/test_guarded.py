"""Whom the pods of trainings and tasks reach, who may ask engines, and what becomes of one that
stands still: on a real cluster."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from moaa.kubernetes import names
from moaa.train import objects
from tests.charts.render import SERVING
from tests.cluster.charts import (
    ALWAYS,
    IMAGE,
    client,
    fake_engine,
    install,
    pods,
    ready,
    serving,
    without_reaper,
)
from tests.cluster.tools import Namespace, namespace, needs_cluster, tried, until

pytestmark = [needs_cluster, pytest.mark.timeout(300)]
LISTEN = (
    "import http.server as h; "
    "h.ThreadingHTTPServer(('', {}), h.SimpleHTTPRequestHandler).serve_forever()"
)


def listens(ns: Namespace, name: str, port: int, **labels: str) -> str:
    """Start a pod that listens on the port; return its address."""
    client(ns, name, labels)
    background = f'nohup python3 -c "{LISTEN.format(port)}" >/tmp/log 2>&1 &'
    ns.kubectl("exec", name, "--", "sh", "-c", background)
    return str(ns.get("pod", name)["status"]["podIP"])


def reaches(ns: Namespace, pod: str, address: str, port: int) -> bool:
    script = f"import socket; socket.create_connection(('{address}', {port}), 4)"
    command = ("kubectl", "-n", ns.name, "exec", pod, "--", "python3", "-c", script)
    return tried(*command).returncode == 0


def test_pods_of_moaa_reach_what_they_need_and_nothing_else() -> None:
    ours = {names.PART_OF: names.OURS}
    training = ours | objects.IS_TRAINING
    with namespace("guarded-net") as made, namespace("guarded-store") as other:
        for name in ("one", "other"):
            address = listens(made, name, objects.PORT, **training)
        task = listens(made, "task", 9000, **ours, **{names.STAGE: "generate"})
        stranger = listens(made, "stranger", 9000, app="x")
        engine = listens(made, "engine", names.PORT, **ours, **{names.MODEL: "m"})
        store = listens(other, "store", 9000, app="s3")
        api = made.kubectl("exec", "task", "--", "printenv", "KUBERNETES_SERVICE_HOST").strip()
        open_before = [
            (made, "stranger", address, objects.PORT),
            (made, "one", stranger, 9000),
            (made, "one", api, 443),
            (other, "store", address, objects.PORT),
        ]
        for each in open_before:
            until(partial(reaches, *each), f"{each[1]} before there is a policy", 30)

        images = {"core": IMAGE, "train": IMAGE}
        policy = {"namespaces": [other.name], "cidrs": []}
        without_reaper(made, {"images": images, "networkPolicy": policy})
        until(lambda: not reaches(made, "stranger", address, objects.PORT), "the policies", 60)
        for each in open_before:
            assert not reaches(*each), each[1:]
        assert not reaches(made, "task", address, objects.PORT), "a task needs no training"
        assert not reaches(made, "one", task, 9000), "nobody calls a task"
        assert not reaches(made, "one", engine, names.PORT), "a training asks no engine"

        assert reaches(made, "one", address, objects.PORT), "its peers"
        assert reaches(made, "one", store, 9000), "the store"
        assert reaches(made, "task", store, 9000), "the store"
        assert reaches(made, "task", engine, names.PORT), "engines"
        assert reaches(made, "task", api, 443), "the API server"
        resolve = "import socket; socket.gethostbyname('kubernetes.default.svc')"
        for pod in ("one", "task"):
            made.kubectl("exec", pod, "--", "python3", "-c", resolve)


@pytest.fixture(scope="module")
def engines() -> Iterator[Namespace]:
    with namespace("guarded-engines") as made:
        fake_engine(made)
        client(made, "friend", {names.CLIENT: "true"})
        yield made


def engine(ns: Namespace) -> dict[str, Any]:
    found = until(
        lambda: [each for each in pods(ns, "always").values() if ready(each)], "the engine", 90
    )
    return dict(found[0])


def asked(ns: Namespace, address: str, key: str, *, sleep_s: float = 0, limit_s: float = 10) -> str:
    """Return the status of the answer to a chat, as a pod of a client gets it."""
    body = json.dumps({"model": "Always-1B", "messages": [], "sleep_s": sleep_s})
    script = (
        "import sys, urllib.request as u, urllib.error as e\n"
        f"r = u.Request('http://{address}:8000/v1/chat/completions', {body!r}.encode(), "
        f"{{'Authorization': 'Bearer {key}'}})\n"
        f"try: print(u.urlopen(r, timeout={limit_s}).status)\n"
        "except e.HTTPError as x: print(x.code)\n"
        "except OSError as x: print(x)\n"
    )
    return ns.kubectl("exec", "friend", "--", "python3", "-c", script).strip()


def test_engines_answer_only_who_has_their_key(engines: Namespace) -> None:
    install(engines, "ens", SERVING, serving(ALWAYS))
    address = engine(engines)["status"]["podIP"]
    data = engines.get("secret", "moaa-engines")["data"]
    key = base64.b64decode(data[names.ENGINES_KEY]).decode()
    assert len(key) == 40
    assert asked(engines, address, key) == "200"
    assert asked(engines, address, "guessed") == "401"
    install(engines, "ens", SERVING, serving(ALWAYS | {"maxModelLen": 512}))
    assert engines.get("secret", "moaa-engines")["data"] == data, "an upgrade keeps it"


def test_an_engine_that_stands_still_is_started_again(engines: Namespace) -> None:
    """It says /health all the time."""
    install(engines, "ens", SERVING, serving(ALWAYS, liveness={"stillSeconds": 30}))
    pod = until(lambda: engine(engines), "the new engine")
    key = base64.b64decode(engines.get("secret", "moaa-engines")["data"][names.ENGINES_KEY])
    address = pod["status"]["podIP"]
    said = asked(engines, address, key.decode(), sleep_s=600, limit_s=200)
    assert "200" not in said, said

    def restarts() -> int:
        found = engines.get("pod", pod["metadata"]["name"])["status"]["containerStatuses"]
        return int(found[0]["restartCount"])

    until(lambda: restarts() == 1, "its restart", 60)
