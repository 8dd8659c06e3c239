"""One request to the API server, with the words for its errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from moaa.kubernetes.kinds import Kind, Object

Verb = Literal["get", "list", "watch", "create", "patch", "delete"]
_METHODS: Final[Mapping[Verb, str]] = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "patch": "PATCH",
    "delete": "DELETE",
}
CONNECT_S: Final = 10.0
READ_S: Final = 30.0
"""The longest pause between two pieces of the answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """A verb (as in Roles) on a kind of object, or on one object, in a namespace."""

    verb: Verb
    kind: Kind
    namespace: str
    name: str = ""
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Object | None = None
    read_s: float | None = READ_S

    @property
    def method(self) -> str:
        """Return the HTTP method."""
        return _METHODS[self.verb]

    @property
    def path(self) -> str:
        """Return the REST path."""
        return self.kind.path(self.namespace, self.name)

    @property
    def what(self) -> str:
        """Return in words what is requested: `Pod 'a'`, or `pods`."""
        name = self.name.partition("/")[0]  # without a subresource
        return f"{self.kind.name} '{name}'" if name else self.kind.plural
