"""The proxy for an address, from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY as in curl."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from moaa.recipe.urls import needs_no_proxy


def proxy_for(url: URL) -> URL | None:
    """Return the proxy for requests to this address; None to connect directly.

    Addresses of this machine and names of services of a cluster never use a proxy. Raises
    ValueError if the proxy in the environment cannot be used.
    """
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found or needs_no_proxy(str(url)) or _is_excluded(url, proxies):
        return None
    variable = f"{url.scheme.upper()}_PROXY"
    with suppress(ValueError):
        proxy = URL(found if "://" in found else f"http://{found}")
        if proxy.scheme in ("http", "https") and proxy.host:
            return proxy
    raise ValueError(
        f"the proxy in {variable} or ALL_PROXY is not an address like http://HOST:PORT. "
        f"Correct it, or put {url.host} into NO_PROXY."
    )


def _is_excluded(url: URL, proxies: dict[str, str]) -> bool:
    host = url.host or ""
    if proxy_bypass(f"{host}:{url.port}"):
        return True
    # Networks (10.0.0.0/8), which the standard library does not support.
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        for entry in proxies.get("no", "").split(","):
            with suppress(ValueError):
                if address in ipaddress.ip_network(entry.strip(), strict=False):
                    return True
    return False
