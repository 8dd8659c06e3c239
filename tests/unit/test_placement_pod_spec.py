"""What all pods that moaa creates have in common."""

from __future__ import annotations

from moaa.placement.pod_spec import Room, plain, pod_spec

CONTAINER = {"name": "node", "image": "i"}


def test_a_pod_is_restricted_and_writes_only_to_its_volumes() -> None:
    work = {"name": "work", "emptyDir": {}}
    spec = pod_spec(CONTAINER, Room(tmp_gib=20, shm_gib=1.5), [("/work", work)], subdomain="x")
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["subdomain"] == "x"
    (container,) = spec["containers"]
    assert container["image"] == "i"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert [each["mountPath"] for each in container["volumeMounts"]] == [
        "/tmp",
        "/dev/shm",
        "/work",
    ]
    assert [each["name"] for each in container["volumeMounts"]] == ["tmp", "shm", "work"]
    assert spec["volumes"] == [
        {"name": "tmp", "emptyDir": {"sizeLimit": "20Gi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1.5Gi"}},
        work,
    ]
    assert CONTAINER == {"name": "node", "image": "i"}, "what was given stays as it was"


def test_a_pod_goes_where_its_pool_is() -> None:
    room = Room(1, node_selector={"gpu": "a"}, toleration="taint", image_pull_secrets=["s"])
    spec = pod_spec(CONTAINER, room)
    assert spec["nodeSelector"] == {"gpu": "a"}
    assert spec["tolerations"] == [{"key": "taint", "operator": "Exists"}]
    assert spec["imagePullSecrets"] == [{"name": "s"}]
    anywhere = pod_spec(CONTAINER, Room(1))
    assert "tolerations" not in anywhere
    assert [each["name"] for each in anywhere["volumes"]] == ["tmp"]


def test_plain_variables() -> None:
    assert plain({"A": "1"}) == [{"name": "A", "value": "1"}]
