"""Addresses in a recipe: what they may contain, and where a key may be sent."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

_ODD = re.compile(r"[\s\\\x00-\x20\x7f]")


def problem_of(url: str) -> str | None:
    """Return what is wrong with a server's address, or None. The sentence does not repeat the
    address, which may have a password in it."""
    if not re.match(r"https?://", url):
        return "must begin with http:// or https://"
    if "@" in url:
        return "holds a user or a password ('@'). Put keys into an environment variable (key_env)"
    if "?" in url or "#" in url:
        return (
            "has a query or a fragment ('?', '#'), which may hold a key. Put keys into an "
            "environment variable (key_env)"
        )
    try:
        parts = urlsplit(url)
        name, _ = parts.hostname, parts.port
        (name or "").encode("idna")  # no label is empty or too long
    except ValueError:
        name = None
    if not name or _ODD.search(url):
        return "is not the address of a server, like https://host:8000/v1"
    return None


def host(url: str) -> str:
    """Return the host of a checked address, or ""."""
    return urlsplit(url).hostname or ""


def origin(url: str) -> str:
    """Return scheme, host and port of a checked address: who gets data sent there."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}[parts.scheme]
    return f"{parts.scheme}://{parts.hostname}:{port}"


def is_inside(url: str) -> bool:
    """Return whether the address is this machine's,
    or a service's inside a cluster (`….svc`, `….svc.cluster.local`)."""
    name = host(url).rstrip(".")
    if name == "localhost" or name.endswith((".localhost", ".svc", ".svc.cluster.local")):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def needs_no_proxy(url: str) -> bool:
    """Return whether no proxy outside can know the address: one inside, or a name without a dot."""
    name = host(url)
    return is_inside(url) or not ("." in name or ":" in name)


def may_carry_key(url: str) -> bool:
    """Return whether nobody else can read a key on its way to this address:
    with https, or inside."""
    return url.startswith("https://") or is_inside(url)
