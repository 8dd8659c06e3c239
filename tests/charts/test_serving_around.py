"""moaa-serving: what stands around the Deployments: network policies, autoscalers, monitoring, the
test."""

from __future__ import annotations

from tests.charts.render import SERVING, needs_helm, objects, of
from tests.charts.serving import HUB, S3

pytestmark = needs_helm


def test_only_clients_reach_an_engine_and_it_reaches_only_where_its_weights_are() -> None:
    policy = {
        "clientNamespaces": ["kubeflow"],
        "metricsNamespaces": ["monitoring"],
        "s3": {"cidrs": [], "namespaces": ["minio"], "ports": [9000]},
    }
    found = objects(SERVING, {"models": [HUB, S3], "networkPolicy": policy})
    engines, s3, hub = (
        of("NetworkPolicy", found, name)["spec"] for name in ("ex", "ex-s3", "ex-hub")
    )
    client = {"matchLabels": {"moaa.dev/client": "true"}}
    assert engines["ingress"] == [
        {
            "ports": [{"port": 8000, "protocol": "TCP"}],
            "from": [
                {"podSelector": client},
                {
                    "namespaceSelector": {
                        "matchLabels": {"kubernetes.io/metadata.name": "kubeflow"}
                    },
                    "podSelector": client,
                },
                {
                    "namespaceSelector": {
                        "matchLabels": {"kubernetes.io/metadata.name": "monitoring"}
                    }
                },
            ],
        }
    ]
    assert [port["port"] for rule in engines["egress"] for port in rule["ports"]] == [53, 53]
    assert engines["policyTypes"] == ["Ingress", "Egress"]
    assert s3["podSelector"]["matchLabels"]["moaa.dev/weights"] == "s3"
    assert s3["egress"] == [
        {
            "ports": [{"port": 9000, "protocol": "TCP"}],
            "to": [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "minio"}}}
            ],
        }
    ]
    assert hub["egress"][0]["to"] == [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}
    ]
    for name, weights in (("qwen", "hub"), ("own", "s3")):
        labels = of("Deployment", found, f"ex-{name}")["spec"]["template"]["metadata"]["labels"]
        assert labels["moaa.dev/weights"] == weights
    assert not [
        each
        for each in objects(SERVING, {"networkPolicy": {"enabled": False}})
        if each["kind"] == "NetworkPolicy"
    ]


def test_without_a_destination_there_is_no_way_out() -> None:
    nowhere: dict[str, list[str]] = {"cidrs": [], "namespaces": []}
    found = objects(SERVING, {"models": [HUB], "networkPolicy": {"hub": nowhere, "s3": nowhere}})
    assert [each["metadata"]["name"] for each in found if each["kind"] == "NetworkPolicy"] == ["ex"]


def test_the_tests_pod_may_ask() -> None:
    found = objects(SERVING, {"models": [HUB, S3 | {"replicas": 1}]})
    made = of("Pod", found)
    assert made["metadata"]["labels"]["moaa.dev/client"] == "true"
    assert "moaa.dev/model" not in made["metadata"]["labels"]
    assert made["spec"]["containers"][0]["command"][3:] == [
        "ex-qwen qwen 0 chat",
        "ex-own own 1 chat",
    ]


def test_hpa_on_waiting_requests() -> None:
    given = {"replicas": 1, "autoscaling": {"kind": "hpa", "maxReplicas": 5, "waiting": 12}}
    spec = of("HorizontalPodAutoscaler", objects(SERVING, {"models": [HUB | given, S3]}))["spec"]
    assert spec["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "ex-qwen",
    }
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 5)
    target = {"type": "AverageValue", "averageValue": "12"}
    assert spec["metrics"] == [
        {
            "type": "Pods",
            "pods": {"metric": {"name": "vllm_num_requests_waiting"}, "target": target},
        }
    ]


def test_keda_on_waiting_requests() -> None:
    given = {
        "replicas": 1,
        "autoscaling": {
            "kind": "keda",
            "maxReplicas": 5,
            "waiting": 12,
            "prometheus": "http://p:9090",
        },
    }
    spec = of("ScaledObject", objects(SERVING, {"models": [HUB | given]}))["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"], spec["scaleTargetRef"]["name"]) == (
        1,
        5,
        "ex-qwen",
    )
    (trigger,) = spec["triggers"]
    assert trigger["metadata"] == {
        "serverAddress": "http://p:9090",
        "query": 'sum(vllm:num_requests_waiting_by_reason{reason="capacity",namespace="moaa",'
        'service="ex-qwen"})',
        "threshold": "12",
        "ignoreNullValues": "true",
    }


def test_service_monitor_scrapes_the_services_of_the_release() -> None:
    found = objects(
        SERVING,
        {
            "models": [HUB],
            "serviceMonitor": {"enabled": True, "labels": {"release": "p"}, "interval": "30s"},
        },
    )
    monitor = of("ServiceMonitor", found)
    assert monitor["metadata"]["labels"]["release"] == "p"
    assert (
        monitor["spec"]["selector"]["matchLabels"].items()
        <= of("Service", found)["metadata"]["labels"].items()
    )
    assert monitor["spec"]["endpoints"] == [{"port": "http", "path": "/metrics", "interval": "30s"}]
    assert of("Service", found)["spec"]["ports"][0]["name"] == "http"
