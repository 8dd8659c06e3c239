"""What the images are made of: everything pinned, and listed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from images import sbom
from tests.support.paths import ROOT

LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
SOURCES = """\
Types: deb
# http://snapshot.debian.org/archive/debian/20260811T000000Z
URIs: http://deb.debian.org/debian
Suites: trixie trixie-updates

Types: deb
# http://snapshot.debian.org/archive/debian-security/20260811T000000Z
URIs: http://deb.debian.org/debian-security
Suites: trixie-security
"""
STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12
Description: GNU C Library
 Status: install ok installed

Package: perl
Status: deinstall ok config-files
Architecture: amd64
Version: 5.40
"""


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_no_package_comes_without_its_hash(lock: Path) -> None:
    entries = re.split(r"\n(?=\S)", lock.read_text().strip())
    assert all("==" in each and "--hash=sha256:" in each for each in entries), lock


def test_what_an_image_copies_is_not_ignored() -> None:
    """The builder sees only what .containerignore lets through: NOTICE once was not among it."""
    lines = (ROOT / ".containerignore").read_text().split()
    assert lines[0] == "*"
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    for file in (ROOT / "images").glob("*.Containerfile"):
        text = re.sub(r"\\\n\s*", "", file.read_text())
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
            for source in sources.split():
                parts = source.split("/")
                above = {"/".join(parts[:n]) for n in range(1, len(parts) + 1)}
                assert above & let_through, f"{file.name}: {source} is ignored"


def test_nothing_is_installed_but_by_a_lock() -> None:
    """An install by name takes whatever is new that day."""
    makefile = (ROOT / "Makefile").read_text()
    files = [*(ROOT / "images").glob("*.Containerfile"), ROOT / "Makefile"]
    for file in files:
        text = re.sub(r"\\\n\s*", "", file.read_text())
        for command in re.findall(r"pip(?: install| wheel)(?! clean)[^&|\n]*", text):
            by_lock = "--require-hashes" in command and ".lock" in command
            ours = re.search(r"--no-build-isolation|/wheels/\*\.whl", command)
            assert by_lock or ours, f"{file.name}: {command}"
    assert "uv==" not in makefile


def test_every_build_has_the_same_base_image_by_its_digest() -> None:
    """Whoever calls the builder: `images/build.sh` names none."""
    files = sorted((ROOT / "images").glob("*.Containerfile"))
    bases = [re.findall(r"^ARG BASE=(.+)$", file.read_text(), re.M) for file in files]
    assert bases == [bases[0]] * 2
    assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", *bases[0])
    assert "python:" not in (ROOT / "images/build.sh").read_text()


def test_debians_packages_are_of_the_base_images_day(tmp_path: Path) -> None:
    (tmp_path / "debian.sources").write_text(SOURCES)
    subprocess.run(
        ["sh", ROOT / "images/apt.sh", "gcc"],
        env={"SOURCES": str(tmp_path), "PATH": "/usr/bin:/bin"},
        check=True,
    )
    assert re.findall("^URIs: (.*)$", (tmp_path / "debian.sources").read_text(), re.M) == [
        "http://snapshot.debian.org/archive/debian/20260811T000000Z",
        "http://snapshot.debian.org/archive/debian-security/20260811T000000Z",
    ]


def test_the_list_of_an_image_names_its_packages(tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)
    (tmp_path / "os-release").write_text('ID=debian\nVERSION_ID="13"\n')
    (found,) = sbom.debian_packages(tmp_path / "status", tmp_path / "os-release")
    assert found["purl"] == "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=debian-13"
    target = tmp_path / "sbom.json"
    subprocess.run([sys.executable, ROOT / "images/sbom.py", "moaa/core", target], check=True)
    listed = json.loads(target.read_text())
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
    assert "pydantic" in {each["name"] for each in listed["components"]}
    references = [each["bom-ref"] for each in listed["components"]]
    assert len(references) == len(set(references))


def test_each_accepted_vulnerability_has_its_reason() -> None:
    lines = (ROOT / "requirements/accepted-vulnerabilities.txt").read_text().splitlines()
    for line in filter(None, lines):
        assert re.match(r"# |[A-Z]+-[\w-]+\s+\S.{20,}", line), line


def test_a_package_of_others_is_copied_to_where_each_image_looks() -> None:
    """docs/extending.md tells how: none of our images needs a pip for it."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    own = page.partition("```dockerfile\n")[2].partition("```")[0]
    python = re.search(r"FROM python:(\d+\.\d+)", own)
    assert python
    assert f"/opt/moaa/lib/python{python[1]}/site-packages" in own
    for name in ("core", "models"):
        file = (ROOT / "images" / f"{name}.Containerfile").read_text(encoding="utf-8")
        assert f"ARG BASE=python:{python[1]}-" in file
        assert "python3 -m venv /opt/moaa" in file
