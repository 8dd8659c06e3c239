"""The API's own schemas of the kinds that the charts render. An unknown field is an error.

    python tests/charts/schemas.py SWAGGER.json CRD.yaml…     # renew kubernetes.json

The files to give are named in `sources` of kubernetes.json.

SWAGGER.json: api/openapi-spec/swagger.json of k8s.io/kubernetes. A kind that comes in several CRDs
(Trainer's, of two versions) must be right by each of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator

FILE = Path(__file__).with_name("kubernetes.json")
KINDS = (
    "v1 ConfigMap",
    "v1 LimitRange",
    "v1 PersistentVolumeClaim",
    "v1 Pod",
    "v1 ResourceQuota",
    "v1 Secret",
    "v1 Service",
    "v1 ServiceAccount",
    "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy",
    "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding",
    "apps/v1 Deployment",
    "autoscaling/v2 HorizontalPodAutoscaler",
    "batch/v1 CronJob",
    "batch/v1 Job",
    "networking.k8s.io/v1 Ingress",
    "networking.k8s.io/v1 NetworkPolicy",
    "policy/v1 PodDisruptionBudget",
    "rbac.authorization.k8s.io/v1 Role",
    "rbac.authorization.k8s.io/v1 RoleBinding",
)
_PRE = "io.k8s.apimachinery.pkg."
_LOOSE = {
    f"{_PRE}util.intstr.IntOrString": {"type": ["integer", "string"]},
    f"{_PRE}api.resource.Quantity": {"type": ["number", "string"]},
}
_JOB, _META = "io.k8s.api.batch.v1.JobSpec", f"{_PRE}apis.meta.v1.ObjectMeta"


def problems(manifest: dict[str, Any]) -> list[str]:
    """Return what Kubernetes would refuse in an object, each with its path; also a kind that is not
    known here."""
    known = json.loads(FILE.read_text())
    kind = f"{manifest.get('apiVersion')} {manifest.get('kind')}"
    if kind not in known["kinds"]:
        return [f"{kind} is not in {FILE.name}: python {Path(__file__).name}"]
    found: list[str] = []
    for definition in known["kinds"][kind]:
        validator = Draft7Validator(
            {"$ref": f"#/definitions/{definition}", "definitions": known["definitions"]}
        )
        found += [
            f"{error.json_path}: {error.message[:300]} ({definition})"
            for error in validator.iter_errors(manifest)
        ]
    return found


def build(swagger: Path, crds: Iterable[Path]) -> dict[str, Any]:
    """Return the schemas of KINDS and of the CRDs, with all that they refer to."""
    definitions = json.loads(swagger.read_text())["definitions"] | _LOOSE
    kinds: dict[str, list[str]] = {}
    for name, definition in definitions.items():
        for each in definition.get("x-kubernetes-group-version-kind", []):
            version = f"{each['group']}/{each['version']}".removeprefix("/")
            if f"{version} {each['kind']}" in KINDS:
                kinds[f"{version} {each['kind']}"] = [name]
    for crd in crds:
        kind, own = _of_crd(yaml.safe_load(crd.read_text()))
        releases = (part.partition("@")[2] for part in reversed(crd.parts) if "@" in part)
        name = f"{crd.stem}@{next(releases, '')}"
        definitions[name] = own
        kinds.setdefault(kind, []).append(name)
    wanted, made = [name for names in kinds.values() for name in names], {}
    while wanted:
        name = wanted.pop()
        if name not in made:
            made[name] = _strict(definitions[name])
            wanted += _references(made[name])
    return {"kinds": dict(sorted(kinds.items())), "definitions": dict(sorted(made.items()))}


def _of_crd(crd: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    version = next(each for each in crd["spec"]["versions"] if each["served"])
    own = version["schema"]["openAPIV3Schema"]
    own["properties"]["metadata"] = {"$ref": f"#/definitions/{_META}"}
    kind = crd["spec"]["names"]["kind"]
    if kind == "TrainingRuntime":  # it repeats the whole Job, which is here already
        job = own["properties"]["spec"]["properties"]["template"]["properties"]["spec"][
            "properties"
        ]["replicatedJobs"]["items"]
        job["properties"]["template"]["properties"] = {
            "metadata": {"$ref": f"#/definitions/{_META}"},
            "spec": {"$ref": f"#/definitions/{_JOB}"},
        }
    return f"{crd['spec']['group']}/{version['name']} {kind}", own


def _strict(schema: Any) -> Any:
    """Return the schema without descriptions; objects take no fields but those it names."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            made[key] = {name: _strict(each) for name, each in value.items()}
        elif not key.startswith("x-") and key not in (
            "description",
            "default",
            "format",
            "nullable",
            "example",
        ):
            made[key] = _strict(value)
    if "properties" in made and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def _references(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        own = [schema["$ref"].rsplit("/", 1)[1]] if isinstance(schema.get("$ref"), str) else []
        return own + [name for each in schema.values() for name in _references(each)]
    return (
        [name for each in schema for name in _references(each)] if isinstance(schema, list) else []
    )


def main() -> None:
    files = [Path(argument) for argument in sys.argv[1:]]
    made = build(files[0], files[1:])
    sources = [file.as_posix().partition("/pkg/mod/")[2] or file.name for file in files]
    lines = [
        f" {json.dumps(name)}: {json.dumps(each, separators=(',', ':'))}"
        for name, each in made["definitions"].items()
    ]
    kinds = json.dumps(made["kinds"])
    head = f'{{"sources": {json.dumps(sources)},\n"kinds": {kinds},\n"definitions": {{\n'
    FILE.write_text(head + ",\n".join(lines) + "\n}}\n")
    print(f"{FILE}: {len(made['definitions'])} definitions, {FILE.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
