"""Admission policies as the API server applies them, evaluated without one.

The rendered expressions run in Google's own implementation of their language (CEL). What the API
server adds to an object first is in `Policies.create`.
"""

from __future__ import annotations

import copy
import functools
from typing import Any, Final

from cel_expr_python import cel

from tests.charts.render import PLATFORM, objects

KNOWN: Final = ("object", "oldObject", "request", "variables")
PIPELINE: Final = "system:serviceaccount:moaa:moaa-pipeline"


class Policies:
    """The policies of moaa-platform in namespace `moaa`, with these values."""

    def __init__(self, values: dict[str, Any]) -> None:
        env = cel.NewEnv(variables=dict.fromkeys(KNOWN, cel.Type.DYN))
        self._compiled = functools.cache(env.compile)
        self._specs = [
            each["spec"]
            for each in objects(PLATFORM, values)
            if each["kind"] == "ValidatingAdmissionPolicy"
        ]

    def create(self, resource: str, made: dict[str, Any], user: str = PIPELINE) -> list[str]:
        """Return why the policies refuse to create this; empty if they do not."""
        made = copy.deepcopy(made)
        if resource == "jobs":
            template = made["spec"]["template"].setdefault("metadata", {})
            template.setdefault("labels", {})["batch.kubernetes.io/job-name"] = "x"
        given = {
            "object": made,
            "oldObject": None,
            "request": {
                "operation": "CREATE",
                "resource": {"resource": resource},
                "userInfo": {"username": user},
                "name": made["metadata"]["name"],
            },
        }
        refusals: list[str] = []
        for spec in self._specs:
            if self._applies(spec, resource, given):
                refusals += self._refusals(spec, given)
        return refusals

    def _applies(self, spec: dict[str, Any], resource: str, given: dict[str, Any]) -> bool:
        rules = spec["matchConstraints"]["resourceRules"]
        named = any(
            resource in each["resources"] and "CREATE" in each["operations"] for each in rules
        )
        return named and all(self._true(c["expression"], given) for c in spec["matchConditions"])

    def _refusals(self, spec: dict[str, Any], given: dict[str, Any]) -> list[str]:
        variables: dict[str, Any] = {}
        given = given | {"variables": variables}
        for each in spec.get("variables", ()):
            found = self._compiled(each["expression"]).eval(data=given)
            # One that fails is an error only where it is used.
            if found.type() != cel.Type.ERROR:
                variables[each["name"]] = found.plain_value()
        return [v["message"] for v in spec["validations"] if not self._true(v["expression"], given)]

    def _true(self, expression: str, given: dict[str, Any]) -> bool:
        """Whether it holds. An error counts as false: `failurePolicy: Fail`."""
        return self._compiled(expression).eval(data=given).value() is True
