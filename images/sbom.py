"""Write what the image holds, as a CycloneDX 1.6 document: python sbom.py IMAGE FILE.

It names each Python package and each Debian package, by version. It needs nothing but Python, and
runs while the image is built.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

STATUS = Path("/var/lib/dpkg/status")
RELEASE = Path("/etc/os-release")

Component = dict[str, Any]


def python_packages() -> Iterator[Component]:
    """Yield each installed distribution once."""
    seen: set[tuple[str, str]] = set()
    for found in distributions():
        name, version = found.metadata["Name"].lower().replace("_", "-"), found.version
        if (name, version) not in seen:
            seen.add((name, version))
            yield _component(name, version, f"pkg:pypi/{name}@{version}")


def debian_packages(status: Path = STATUS, release: Path = RELEASE) -> Iterator[Component]:
    """Yield each package that dpkg's list calls installed."""
    if not status.exists():
        return
    system = dict(
        line.replace('"', "").split("=", 1)
        for line in release.read_text().splitlines()
        if "=" in line
    )
    distro = f"{system.get('ID', 'debian')}-{system.get('VERSION_ID', '')}".rstrip("-")
    for paragraph in status.read_text(errors="replace").split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if ": " in line and line[0] != " "
        )
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            where = f"?arch={fields['Architecture']}&distro={distro}"
            yield _component(name, version, f"pkg:deb/debian/{name}@{version}{where}")


def _component(name: str, version: str, purl: str) -> Component:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def document(image: str, components: list[Component]) -> dict[str, Any]:
    """Return the CycloneDX document of an image, the same for the same packages."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": image, "name": image}},
        "components": sorted(components, key=lambda each: str(each["purl"])),
    }


def main() -> None:
    image, target = sys.argv[1:]
    found = [*python_packages(), *debian_packages()]
    Path(target).write_text(json.dumps(document(image, found), indent=1) + "\n")
    print(f"{target}: {len(found)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
