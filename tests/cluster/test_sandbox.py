"""Programs of models on a real cluster: they reach nothing, and a pod that is open runs none."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moaa.errors import ClusterError
from moaa.recipe.schema import Cluster, Images, Runtime
from moaa.sandbox import inside, objects
from moaa.sandbox.run import Sandbox, Timing
from tests.cluster.charts import IMAGE, without_reaper
from tests.cluster.leased import connected
from tests.cluster.test_admission import REFUSED, Account
from tests.cluster.tools import Namespace, namespace, needs_cluster, until

pytestmark = [needs_cluster, pytest.mark.timeout(300)]
Change = Callable[[dict[str, Any], dict[str, Any]], object]

REACHES_NOTHING = """
import socket
for address in [("{api}", 443), ("1.1.1.1", 443)]:
    try:
        socket.create_connection(address, 1)
    except OSError:
        continue
    raise RuntimeError(address)
"""
WRITES_NOTHING = """
for place in ("/", "/tmp", "/var/tmp", "/dev/shm", "/run", "/home", "."):
    try:
        open(place + "/written", "w")
    except OSError:
        continue
    raise RuntimeError(place)
"""
HAS_NO_TOKEN = """
import os
assert not os.path.exists("/var/run/secrets/kubernetes.io")
assert not [name for name in os.environ if "MOAA" in name]
"""
READS_NO_OTHER = """
import os
try:
    os.listdir("/proc/1/fd")
except OSError:
    os._exit  # the process that says the outcomes is not to be read
else:
    raise RuntimeError
"""


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace("guarded-sandbox") as made:
        values = {"images": {"core": IMAGE, "train": IMAGE}, "sandbox": {"enabled": True}}
        without_reaper(made, values)
        yield made


@pytest.fixture
def runtime(ns: Namespace, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The image of these tests has no moaa: the module comes as the command's text."""
    source = Path(inside.__file__).read_text()
    monkeypatch.setattr(objects, "COMMAND", ("python3", "-B", "-c", source))
    return Runtime(cluster=Cluster(namespace=ns.name, images=Images(core=IMAGE)))


def outcomes(ns: Namespace, runtime: Runtime, programs: dict[str, str]) -> dict[str, str]:
    with connected(os.environ["KUBECONFIG"], ns.name) as cluster:
        return Sandbox(runtime, Timing(poll_s=0.5), lambda _: cluster).outcomes(programs)


def test_programs_reach_nothing_and_keep_nothing(ns: Namespace, runtime: Runtime) -> None:
    api = Namespace("default").get("service", "kubernetes")["spec"]["clusterIP"]
    programs = {
        "network": REACHES_NOTHING.format(api=api),
        "disk": WRITES_NOTHING,
        "token": HAS_NO_TOKEN,
        "parent": READS_NO_OTHER,
        "wrong": "assert 1 == 2",
        "early": "raise SystemExit(0)",
    }
    assert outcomes(ns, runtime, programs) == {
        "network": "passed",
        "disk": "passed",
        "token": "passed",
        "parent": "passed",
        "wrong": "AssertionError",
        "early": "SystemExit",
    }
    until(lambda: not ns.items("jobs"), "the Job to be gone")


def test_without_the_policy_nothing_is_run(
    ns: Namespace, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "SANDBOX", "moaa.dev/other")
    source = objects.COMMAND[-1].replace("SHUT_WAIT_S = 60.0", "SHUT_WAIT_S = 3.0")
    monkeypatch.setattr(objects, "COMMAND", (*objects.COMMAND[:-1], source))
    with pytest.raises(ClusterError, match="not isolated: the network is open"):
        outcomes(ns, runtime, {"a": "assert True"})


@pytest.fixture(scope="module")
def account(ns: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Account:
    made = Account(ns, tmp_path_factory.mktemp("account"))
    foreign = job(ns)
    foreign["spec"]["template"]["spec"]["containers"][0]["image"] = "evil:1"
    until(lambda: REFUSED in made.create(foreign), "the policies", 60)
    return made


def job(ns: Namespace) -> dict[str, Any]:
    runtime = Runtime(cluster=Cluster(namespace=ns.name, images=Images(core=IMAGE)))
    return objects.job({"a": "assert True"}, runtime, "run")


def test_the_pipelines_account_may_create_the_sandbox_that_moaa_makes(account: Account) -> None:
    assert account.create(job(account.ns)) == ""


CHANGES: dict[str, Change] = {
    "an image": lambda pod, container: container.update(image="evil:1"),
    "a shell": lambda pod, container: container.update(command=["sh", "-c", "id"]),
    "a token": lambda pod, container: pod.update(automountServiceAccountToken=True),
    "an account": lambda pod, container: pod.update(serviceAccountName="moaa-pipeline"),
    "a secret": lambda pod, container: container["env"].append(
        {
            "name": "MOAA_PROGRAMS_9",
            "valueFrom": {"secretKeyRef": {"name": "moaa-s3", "key": "AWS_SECRET_ACCESS_KEY"}},
        }
    ),
    "a preloaded library": lambda pod, container: container["env"].append(
        {"name": "LD_PRELOAD", "value": "/x.so"}
    ),
    "room to write": lambda pod, container: container["volumeMounts"][0].update(readOnly=False),
    "a root that can be written": lambda pod, container: container["securityContext"].update(
        readOnlyRootFilesystem=False
    ),
    "the node's network": lambda pod, container: pod.update(hostNetwork=True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_other_sandbox_passes(account: Account, change: Change) -> None:
    body = job(account.ns)
    pod = body["spec"]["template"]["spec"]
    change(pod, pod["containers"][0])
    assert REFUSED in account.create(body)


def test_the_pods_have_the_label_that_shuts_them_in(account: Account) -> None:
    body = copy.deepcopy(job(account.ns))
    body["spec"]["template"]["metadata"]["labels"] = {"app.kubernetes.io/part-of": "moaa"}
    assert REFUSED in account.create(body)
