"""Secrets in a recipe: none may be in it, and each key is sent only where it belongs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, Protocol

from moaa.errors import RecipeError
from moaa.masking import KEY_STARTS, TOKEN
from moaa.recipe import urls
from moaa.recipe.addresses import Address, dotted
from moaa.recipe.publish import HUB, Publish
from moaa.recipe.read import Given, places
from moaa.recipe.serving import Model, Runtime, StoreAddress

TEXT_FIELDS: Final = frozenset(
    {
        "instruction",
        "criteria_instruction",
        "assess_instruction",
        "verdict_instruction",
        "system",
    }
)
"""Fields with texts for models. Their value may be `file:PATH`."""
_ENV_FIELDS = {"key_env", "access_key_env", "secret_key_env", "session_token_env", "secret_envs"}
_ENV_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
_SECRET = re.compile(
    rf"(?<![A-Za-z0-9])({KEY_STARTS})[A-Za-z0-9_\-]{{12,}}|{TOKEN}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_USER_IN_ADDRESS = re.compile(r"://[^/\s]*@")
_QUERY_IN_ADDRESS = re.compile(r"https?://[^\s?]*\?", re.IGNORECASE)
_ADDRESSES = ("url", "endpoint_url")
"""Fields with the address of a server, which have rules of their own (`moaa.recipe.urls`)."""

S3_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""The usual names of the two keys: of environment variables, and in a cluster's Secret."""

_OWNED: Final[tuple[tuple[re.Pattern[str], str, str], ...]] = (
    (
        re.compile(r"AWS_.*"),
        "AWS and S3",
        r"bedrock-(runtime|mantle)(-fips)?\.[a-z]+(-[a-z]+)+-\d\.(amazonaws\.com|api\.aws)",
    ),
    (re.compile(r"HF_.*|HUGGING_?FACE.*"), "the model hub", r"(.*\.)?huggingface\.co"),
    (
        re.compile(r"(GITHUB|GH|ACTIONS)_.*"),
        "GitHub",
        r"(.*\.)?github\.(ai|com)|models\.inference\.ai\.azure\.com",
    ),
    (re.compile(r"KFP_.*"), "Kubeflow", ""),
    (re.compile(r"KUBE.*"), "Kubernetes", ""),
    (re.compile(r"(CI|GITLAB|JENKINS|BUILDKITE)_.*"), "the build", ""),
    (re.compile(r"AZURE_CLIENT_.*|AZURE_STORAGE_.*|GOOGLE_APPLICATION_.*"), "the cloud", ""),
    (re.compile(r"(DOCKER|REGISTRY|NPM|PYPI|TWINE|UV|PIP|VAULT|SSH|GPG)_.*"), "another tool", ""),
    (re.compile(r"MOAA_.*"), "moaa itself", ""),
    (re.compile(r"PATH|HOME|USER|LD_.*|PYTHON.*|HTTPS?_PROXY|ALL_PROXY"), "the system", ""),
)
"""Environment variables with an owner: their names, the owner, and the hosts (a pattern) that may
get them as an endpoint's key: only those that no customer of the owner can have."""


def refuse_written(given: Given, errors: list[str]) -> None:
    """Refuse values that look like keys, without showing them: keys belong into the environment."""
    for path, item in places(given):
        if isinstance(item.value, dict):
            for field in [name for name in item.value if _SECRET.search(name)]:
                del item.value[field]
                errors.append(
                    f"{item.where}: the name of a field begins like a secret. A recipe has none: "
                    "put it into an environment variable and give that variable's name (key_env)."
                )
        if not isinstance(item.value, str):
            continue
        if kind := _kind_of_secret(item.value, str(path[-1]) if path else ""):
            errors.append(
                f"{item.where}: {dotted(path)} {kind}. A recipe must have none: put it into an "
                "environment variable and give "
                f"that variable's name (key_env)."
            )
            item.value = _instead_of(path)
            continue
        names = [step for step in path if step in _ENV_FIELDS]
        if names and not _ENV_NAME.fullmatch(item.value):
            errors.append(
                f"{item.where}: {dotted(path)} must be the name of an environment variable, like "
                "OPENAI_API_KEY; what is given "
                "is not one (not shown here: it may be the secret itself). Capitals, digits and "
                "_ only."
            )
            item.value = _instead_of(path)


def _kind_of_secret(value: str, field: str) -> str:
    """Return what looks like a secret in the value of a field; "" if nothing does."""
    found = _SECRET.search(value)
    if found and found[1]:
        return f"begins like a secret ('{found[1]}…')"
    if found or (field not in TEXT_FIELDS and _USER_IN_ADDRESS.search(value)):
        return "holds a password or a private key"
    if field not in (*TEXT_FIELDS, *_ADDRESSES) and _QUERY_IN_ADDRESS.search(value):
        return "is an address with a query ('?'), which may hold a key"
    return ""


def _instead_of(path: Address) -> str | None:
    """Return a value in place of a secret, so that the rest can be checked."""
    if path and path[-1] in _ADDRESSES:
        return "https://redacted.invalid"
    return None if path and path[-1] == "key_env" else "REDACTED"


class Keyed(Protocol):
    """The parts of a recipe that name keys: its models, store and runtime,
    and where it publishes."""

    @property
    def models(self) -> Mapping[str, Model]:
        """The recipe's models."""

    @property
    def store(self) -> StoreAddress:
        """The recipe's S3."""

    @property
    def runtime(self) -> Runtime:
        """Where and how the recipe runs."""

    @property
    def publish(self) -> Publish | None:
        """Where the recipe publishes, if it does."""


def endpoint_keys(recipe: Keyed) -> dict[str, str]:
    """Return the name of the variable with the API key of each endpoint that needs one, by the
    model's name."""
    return {
        name: model.endpoint.key_env
        for name, model in recipe.models.items()
        if model.endpoint and model.endpoint.key_env
    }


def problems(recipe: Keyed) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the address of each key that would be sent where it does not belong, and why."""
    store = _store_keys(recipe)
    keys: set[str] = set()
    for name, key in endpoint_keys(recipe).items():
        where = ("models", name, "endpoint", "key_env")
        if key in store:
            yield where, f"{key} belongs to the store. Name the endpoint's own key."
            continue
        keys.add(key)
        if whose := _owner(key, _address(recipe, name)):
            yield (
                where,
                f"{key} belongs to {whose}; it is not sent to this endpoint. Put the endpoint's "
                "key into a variable of its own, like OPENAI_API_KEY.",
            )
    for field in ("access_key_env", "secret_key_env", "session_token_env"):
        name = getattr(recipe.store, field)
        if name is None:
            continue
        if (
            name in keys
            or (re.search("TOKEN|API_?KEY", name) and field != "session_token_env")
            or _owner(name, "", beside="AWS and S3")
        ):
            yield (
                ("store", field),
                f"{name} is not a key of an S3 store. Name the variable that holds the store's "
                "own key, like AWS_ACCESS_KEY_ID.",
            )
    for index, name in enumerate(recipe.runtime.secret_envs):
        if name in store or _owner(name, "", beside="the model hub"):
            yield (
                ("runtime", "secret_envs", index),
                f"{name} is not for the stages' own use. Name only what they need besides the "
                "store's keys, like HF_TOKEN.",
            )


class _StageKey(NamedTuple):
    """A key that the stages use themselves."""

    where: Address
    key: str
    server: str
    beside: str = ""
    """The owner of a variable that may be used here."""


def _stage_keys(recipe: Keyed) -> Iterator[_StageKey]:
    for index, tracker in enumerate(recipe.runtime.trackers):
        if tracker.key_env and tracker.server:
            tracked = ("runtime", "trackers", index, "key_env")
            yield _StageKey(tracked, tracker.key_env, tracker.server)
    publish = recipe.publish
    if publish and publish.registry and publish.registry.key_env:
        registry = publish.registry
        yield _StageKey(("publish", "registry", "key_env"), registry.key_env or "", registry.url)
    if publish and publish.hub:
        hub = publish.hub.key_env
        yield _StageKey(("publish", "hub", "key_env"), hub, HUB, beside="the model hub")


def stage_key_problems(recipe: Keyed) -> Iterator[tuple[Address, str]]:
    """Yield the address of each key of a tracker, a registry or the hub that would be missing, or
    that belongs to something else."""
    for where, key, _, beside in _stage_keys(recipe):
        whose = "the store" if key in _store_keys(recipe) else _owner(key, "", beside)
        if whose:
            yield where, f"{key} belongs to {whose}. Name the key of its own."
        elif key not in recipe.runtime.secret_envs:
            yield (
                where,
                f"{key} is not one of runtime.secret_envs: no stage would get it. Add it there.",
            )


def _address(recipe: Keyed, model: str) -> str:
    endpoint = recipe.models[model].endpoint
    assert endpoint
    return endpoint.url


def _store_keys(recipe: Keyed) -> set[str]:
    """Return the names of the variables that hold the store's keys and their token."""
    store = recipe.store
    # In a task the usual names hold a store's keys, whatever the recipe calls them.
    named = {*S3_KEYS, store.access_key_env, store.secret_key_env}
    return named | ({store.session_token_env} if store.session_token_env else set())


def _owner(name: str, url: str, beside: str = "") -> str:
    """Return the variable's owner, or "" if it may go to `url`,
    or has no owner or is `beside`'s."""
    host = urls.host(url) if url else ""
    for pattern, owner, hosts in _OWNED:
        if pattern.fullmatch(name):
            return "" if owner == beside or (hosts and re.fullmatch(hosts, host)) else owner
    return ""


DESTINATIONS_ENV: Final = "MOAA_DESTINATIONS"
"""The variable in which a compiled pipeline lists where each key may be sent,
as JSON (`destinations`)."""


def destinations(recipe: Keyed) -> dict[str, list[str]]:
    """Return, by the name of each key's variable, the servers that get it (`urls.origin`).

    The store's address is "" if the environment gives it.
    """
    found: dict[str, set[str]] = {}
    store = recipe.store
    for name in _store_keys(recipe):
        found.setdefault(name, set()).add(
            urls.origin(store.endpoint_url) if store.endpoint_url else ""
        )
    for model, name in endpoint_keys(recipe).items():
        found.setdefault(name, set()).add(urls.origin(_address(recipe, model)))
    for each in _stage_keys(recipe):
        found.setdefault(each.key, set()).add(urls.origin(each.server))
    return {name: sorted(servers) for name, servers in sorted(found.items())}


def refuse_other_destinations(recipe: Keyed, compiled: str) -> None:
    """Check that each key goes only to servers in the compiled pipeline. Raises RecipeError if not.

    The user who starts a run chooses its recipe; the keys belong to the user who compiled it.
    """
    allowed = json.loads(compiled)
    for name, servers in destinations(recipe).items():
        known = allowed.get(name, [])
        for server in servers:
            if server not in known:
                named = ", ".join(each or "the environment's store" for each in known)
                raise RecipeError(
                    f"this run's recipe sends {name} to {server or 'the environment'}, but the "
                    f"pipeline was compiled for {named or 'no server'}. Nothing was sent. "
                    "Compile the pipeline from this recipe, or start the run by `moaa submit "
                    "RECIPE`, which does."
                )
