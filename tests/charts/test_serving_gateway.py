"""moaa-serving: the gateway, its file, its rights, and the slots of promoted models."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from moaa.gateway.config import GatewayConfig, parse_config
from moaa.gateway.metrics import Metrics
from moaa.kubernetes.kinds import DEPLOYMENTS
from moaa.kubernetes.leases import Lease
from tests.charts.render import EXAMPLES, SERVING, golden, needs_helm, objects, of, parsed, refusal
from tests.charts.rights import rights as role_rights

pytestmark = needs_helm
LEASED = {"name": "small", "source": "s3://m/small", "servedName": "Small-1B"}
ALWAYS = {"name": "big", "source": "s3://m/big", "replicas": 1}
PROMOTED = {"name": "aligned", "pointers": "s3://m/pointers/aligned/"}


def values(**gateway: Any) -> dict[str, Any]:
    return {
        "models": [LEASED, ALWAYS],
        "promoted": [PROMOTED],
        "gateway": {"enabled": True, **gateway},
    }


def config(found: list[dict[str, Any]]) -> GatewayConfig:
    return parse_config(of("ConfigMap", found, "ex-gateway")["data"]["gateway.yaml"], "rendered")


def rights(found: list[dict[str, Any]], role: str) -> set[tuple[str, str, str]]:
    """Return (resource, verb, name) of a Role; an empty name: all of them."""
    return {
        (resource, verb, name)
        for rule in of("Role", found, f"ex-gateway-{role}")["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def test_without_it_nothing_of_it_is_there() -> None:
    found = objects(SERVING, {"models": [LEASED]})
    assert not [each for each in found if "gateway" in json.dumps(each["metadata"])]


def test_its_file_is_one_that_the_gateway_takes() -> None:
    made = config(objects(SERVING, values()))
    assert made.names == ["Small-1B", "big", "aligned"]
    assert {name: each.service for name, each in made.models.items()} == {
        "Small-1B": "ex-small",
        "big": "ex-big",
        "aligned-a": "ex-aligned-a",
        "aligned-b": "ex-aligned-b",
    }
    assert made.models["aligned-a"].served_name == "aligned"
    assert made.models["big"].key_env == "VLLM_API_KEY"
    assert (made.keys_file, made.anonymous) == ("/keys/keys.yaml", None)
    assert made.promoted["aligned"].config_map == "ex-aligned"


@pytest.mark.parametrize("example", [each for each in EXAMPLES if "gateway" in each.name])
def test_the_examples_files_are_such_ones(example: Any) -> None:
    assert "moa" in config(parsed(golden(example).read_text())).mixtures


def test_more_of_its_file_comes_from_the_values() -> None:
    more = {"limits": {"tokens_per_minute": 30_000_000}, "times": {"idle_s": 30}}
    made = config(objects(SERVING, values(config=more)))
    assert made.limits.tokens_per_minute == 30_000_000
    assert (made.times.idle_s, made.times.drain_s) == (30, 120)


def test_without_keys_it_is_refused_unless_everybody_may_ask() -> None:
    without: dict[str, Any] = {"keys": {"secretName": ""}}
    assert "nobody could ask" in refusal(SERVING, values(**without))
    found = objects(SERVING, values(**without, anonymous=True))
    made = config(found)
    assert made.anonymous is not None
    assert not made.anonymous.wake
    pod = of("Deployment", found, "ex-gateway")["spec"]["template"]["spec"]
    assert "secret" not in json.dumps(pod["volumes"])


def test_it_may_read_and_nothing_else_of_models_that_are_always_on() -> None:
    found = objects(SERVING, {"models": [ALWAYS], "gateway": {"enabled": True}})
    assert [each["metadata"]["name"] for each in found if each["kind"] == "Role"] == [
        "ex-gateway-read"
    ]
    assert {verb for _, verb, _ in rights(found, "read")} == {"get", "list", "watch"}


def test_it_may_change_its_own_leases_the_scale_of_what_it_wakes_and_the_shares() -> None:
    found = objects(SERVING, values(wake={"enabled": True}))
    woken = {"ex-small", "ex-aligned-a", "ex-aligned-b"}
    cluster: Any = None
    leases = {Lease(cluster, DEPLOYMENTS, each, f"gateway/ex/{each}").name for each in woken}
    wake = rights(found, "wake")
    assert {name for kind, _, name in wake if kind == "deployments/scale"} == woken
    assert {name for kind, verb, name in wake if kind == "leases" and verb == "patch"} == leases
    assert {verb for kind, verb, name in wake if kind == "leases" and not name} == {
        "create",
        "list",
    }
    assert rights(found, "guard") == {
        ("configmaps", "patch", "ex-aligned"),
        ("events", "create", ""),
    }
    holder = config(found).cluster.wake
    assert holder is not None
    assert holder.holder == "gateway/ex"


def test_without_wake_it_may_scale_slots_alone() -> None:
    wake = rights(objects(SERVING, values()), "wake")
    assert {name for kind, _, name in wake if kind == "deployments/scale"} == {
        "ex-aligned-a",
        "ex-aligned-b",
    }


def test_who_promotes_may_change_shares_and_the_scale_of_slots_and_nothing_else_of_them() -> None:
    found = objects(SERVING, values())
    shares = {f"{verb} configmaps ex-aligned" for verb in ("get", "patch")}
    scale = {
        f"{verb} deployments/scale.apps ex-aligned-{slot}"
        for verb in ("get", "patch")
        for slot in "ab"
    }
    looks = {"get deployments.apps", "list deployments.apps", "list pods"}
    looks |= {"list endpointslices.discovery.k8s.io", "create events"}
    leases = {
        f"{verb} leases.coordination.k8s.io"
        for verb in ["create", "get", "list", "patch", "delete"]
    }
    assert role_rights(of("Role", found, "ex-promote")) == shares | scale | looks | leases


def test_the_pipelines_account_promotes_unless_others_are_named() -> None:
    def bound(**more: Any) -> list[tuple[str, str]]:
        found = objects(SERVING, {**values(), **more})
        if not [each for each in found if each["metadata"]["name"] == "ex-promote"]:
            return []
        subjects = of("RoleBinding", found, "ex-promote")["subjects"]
        return [(each["namespace"], each["name"]) for each in subjects]

    assert bound() == [("moaa", "moaa-pipeline")]
    others = [{"name": "ci"}, {"name": "pipeline-runner", "namespace": "kubeflow"}]
    assert bound(promotedBy=others) == [("moaa", "ci"), ("kubeflow", "pipeline-runner")]
    assert bound(promotedBy=[]) == []
    assert bound(promoted=[]) == []


def test_a_slot_serves_what_its_pointer_names_and_tells_its_revision() -> None:
    for device in ("cuda", "cpu"):
        pools = {"default": {"device": device}}
        found = objects(SERVING, {**values(), "pools": pools})
        slot = of("Deployment", found, "ex-aligned-b")
        assert slot["spec"]["replicas"] == 0
        pod = slot["spec"]["template"]["spec"]
        fetch, vllm = pod["initContainers"][0], pod["containers"][0]
        pointer = "s3://m/pointers/aligned/b.json"
        assert fetch["command"][4] == pointer
        assert fetch["command"][-2:] == ["--pointer", "/tmp/moaa-slot"]
        shown = " ".join(vllm["command"])
        assert ". /tmp/moaa-slot" in shown
        assert '"$MOAA_MODEL"' in shown
        assert '--fingerprint-value="$MOAA_REVISION"' in shown
        assert "--served-model-name=aligned" in vllm["args"]
        assert slot["spec"]["template"]["metadata"]["labels"]["moaa.dev/weights"] == "s3"


def test_engines_take_calls_of_the_gateway_and_of_clients_alone() -> None:
    found = objects(SERVING, values())
    (rule,) = of("NetworkPolicy", found, "ex")["spec"]["ingress"]
    selectors = [each["podSelector"]["matchLabels"] for each in rule["from"]]
    gateway = of("Deployment", found, "ex-gateway")["spec"]
    assert selectors == [{"moaa.dev/client": "true"}, gateway["selector"]["matchLabels"]]
    labels = gateway["template"]["metadata"]["labels"]
    assert "moaa.dev/model" not in labels, "the reaper would take it for an engine"


def test_its_own_policy_names_who_may_ask() -> None:
    given = values(network={"namespaces": ["apps"], "cidrs": []})
    policy = of("NetworkPolicy", objects(SERVING, given), "ex-gateway")["spec"]
    (ask,) = policy["ingress"]
    assert ask["ports"] == [{"port": 8080, "protocol": "TCP"}]
    assert ask["from"] == [
        {"podSelector": {}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "apps"}}},
    ]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {53, 8000}


def test_a_new_file_restarts_it_and_new_keys_do_not() -> None:
    def stamp(**gateway: Any) -> str:
        made = of("Deployment", objects(SERVING, values(**gateway)), "ex-gateway")
        return str(made["spec"]["template"]["metadata"]["annotations"]["moaa.dev/file"])

    assert stamp() != stamp(config={"limits": {"in_flight": 3}})
    assert stamp() == stamp(keys={"secretName": "others"})


def test_two_models_of_one_served_name_are_refused() -> None:
    twice = {**values(), "models": [LEASED, ALWAYS | {"servedName": "Small-1B"}]}
    assert "two have the servedName 'Small-1B'" in refusal(SERVING, twice)


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    text = (SERVING / "files" / "dashboard.json").read_text()
    asked = set(re.findall(r"moaa_gateway_\w+", text))
    told = {each.name for each in vars(Metrics()).values()}
    assert {re.sub("_(bucket|sum|count)$", "", each) for each in asked} <= told
    json.loads(text)


def test_routes_lead_to_the_service() -> None:
    given = values(
        httpRoute={"enabled": True, "parentRefs": [{"name": "public"}]}, ingress={"enabled": True}
    )
    found = objects(SERVING, given)
    service = of("Service", found, "ex-gateway")["spec"]["ports"][0]
    route = of("HTTPRoute", found)["spec"]["rules"][0]["backendRefs"]
    assert route == [{"name": "ex-gateway", "port": service["port"]}]
    [path] = of("Ingress", found)["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"] == {"name": "ex-gateway", "port": {"name": service["name"]}}


def test_monitors_scrape_each_port_once() -> None:
    found = objects(SERVING, {**values(), "serviceMonitor": {"enabled": True}})
    gateway = of("Service", found, "ex-gateway")["metadata"]["labels"]
    engines = of("ServiceMonitor", found, "ex")["spec"]["selector"]
    assert [each["key"] for each in engines["matchExpressions"]] == ["moaa.dev/model"]
    own = of("ServiceMonitor", found, "ex-gateway")["spec"]
    assert own["selector"]["matchLabels"].items() <= gateway.items()
    assert own["endpoints"][0]["port"] == "metrics"


def test_it_gets_keys_of_s3_only_to_keep_feedback() -> None:
    def variables(**config: Any) -> set[str]:
        pod = of("Deployment", objects(SERVING, values(config=config)), "ex-gateway")
        (container,) = pod["spec"]["template"]["spec"]["containers"]
        return {each["name"] for each in container["env"]}

    assert "AWS_SECRET_ACCESS_KEY" not in variables()
    kept = {"store": {"root": "s3://moaa/feedback"}}
    assert "AWS_SECRET_ACCESS_KEY" in variables(feedback=kept)


@pytest.mark.parametrize(("device", "program"), [("cuda", "vllm"), ("cpu", "python3")])
def test_the_start_of_a_slot_gives_the_engine_what_the_pointer_named(
    device: str, program: str, tmp_path: Path
) -> None:
    found = objects(SERVING, {**values(), "pools": {"default": {"device": device}}})
    slot = of("Deployment", found, "ex-aligned-a")["spec"]["template"]["spec"]
    vllm = slot["containers"][0]
    told = tmp_path / "slot"
    told.write_text("MOAA_MODEL=/models/aligned-a/v1-0a\nMOAA_REVISION=v1-0a\n")
    (tmp_path / program).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / program).chmod(0o755)
    command = [each.replace("/tmp/moaa-slot", str(told)) for each in vllm["command"]]
    done = subprocess.run(
        [*command, *vllm["args"]],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    given = done.stdout.splitlines()
    assert any(each.endswith("/models/aligned-a/v1-0a") for each in given)
    assert {"--fingerprint-mode=custom", "--fingerprint-value=v1-0a"} <= set(given)
    assert "--served-model-name=aligned" in given
