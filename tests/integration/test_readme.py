"""The commands of the README and of the quick start, typed in their order on a clean copy of the
repository.

Of `make` only the target must exist: the environment of this test is what it makes. A run stops
after its first stages, and a question goes to a small server instead of an engine. Of what needs a
cluster, the command and its options must exist.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import S3
from tests.support.engine_server import EngineServer

ROOT = Path(__file__).parents[2]
NEEDS_A_CLUSTER = re.compile(r"^moaa submit |--in-cluster|^helm |^kubectl |^moaa preflight \$DEMO")
PAGES = ("README.md", "docs/index.md")


def commands(page: str = "README.md") -> list[str]:
    """The commands of a page, without comments, each on one line."""
    found: list[str] = []
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        text = re.sub(r"(^|\s+)#.*$", "", block, flags=re.MULTILINE)
        text = re.sub(r"(\||\\)\n\s*", lambda end: "| " if end[1] == "|" else "", text)
        found += [line.strip() for line in text.splitlines() if line.strip()]
    return found


def test_the_readme_has_the_commands_of_a_first_hour() -> None:
    text = "\n".join(commands())
    for start in ("make demo", "make setup", "source ", "moaa run ", "moaa runs", "moaa submit "):
        assert start in text


@pytest.mark.parametrize(
    "command",
    [
        each
        for each in commands()
        if each.startswith("moaa ") and NEEDS_A_CLUSTER.search(each.rpartition("| ")[2])
    ],
)
def test_a_command_that_needs_a_cluster_exists(command: str) -> None:
    first = command.split(" | ")[0]
    _, *words = shlex.split(first)
    name = words[:2] if words[0] == "recipe" else words[:1]
    called = [sys.executable, "-m", "moaa.cli", *name, "--help"]
    shown = subprocess.run(called, capture_output=True, text=True, check=True).stdout
    for option in (word for word in words if word.startswith("--")):
        assert option in shown.split(), f"moaa {' '.join(name)} has no {option}"


@pytest.mark.parametrize("page", PAGES)
def test_the_other_commands_work_in_their_order(page: str, tmp_path: Path, s3: S3) -> None:
    clone = tmp_path / "moaa"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, clone / name, follow_symlinks=False)
    for name in (".venv", ".cache"):
        (clone / name).symlink_to(ROOT / name)
    with EngineServer("smollm2") as server:
        script = ["set -e -o pipefail"]
        for command in commands(page):
            if NEEDS_A_CLUSTER.search(command.rpartition("| ")[2]):
                command = command.split(" | ")[0] if " | " in command else ""
            if command.startswith("make "):
                command = f"grep -q '^{command.split()[1]}:' Makefile"
            elif command.startswith("moaa run "):
                command += " --until prompts"
            elif command.startswith("moaa ask "):
                command += f" --endpoint {server.url}"
            if command:
                script += [f"echo {shlex.quote(f'$ {command}')}", command]
        done = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            cwd=clone,
            env={**os.environ, "MOAA_PACKAGES": str(ROOT / ".cache" / "pkgs")},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "synthesis by smollm2" in done.stdout
    assert "prompts reused" in done.stdout, "`moaa runs` shows the second run"
