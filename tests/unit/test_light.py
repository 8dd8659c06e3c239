"""`moaa --help` is instant: it imports nothing that it does not show."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

HEAVY = (
    "aiohttp",
    "boto3",
    "botocore",
    "jinja2",
    "kfp",
    "kubernetes",
    "numpy",
    "openai",
    "pyarrow",
    "pydantic",
    "rich",
    "torch",
    "transformers",
    "uvloop",
    "vllm",
    "yaml",
    "zstandard",
)


def test_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, moaa.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "typer" in loaded
    assert not set(HEAVY) & set(loaded)


def test_the_help_of_a_command_imports_only_what_typer_wants() -> None:
    code = "import sys; sys.argv = ['moaa', 'ask', '--help']\nfrom moaa.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "--endpoint" in out
    assert set(HEAVY) & {name.split(".")[0] for name in out.splitlines()[-1].split()} <= {
        "pydantic"
    }  # typer's own way to read types


def test_importing_the_library_is_light() -> None:
    code = "import sys, moaa, moaa.errors, moaa.ledger; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {*HEAVY, "typer"} & set(loaded)


def test_help_takes_at_most_200_ms_more_than_python_itself() -> None:
    """Processor time, the best of several tries: other work on the machine makes the clock tell
    nothing.

    Where Python itself needs longer than 20 ms, ten times as long.
    """
    script = str(Path(sys.executable).with_name("moaa"))
    bare = [sys.executable, "-c", "pass"]
    for _ in range(6):
        python_s = _processor_s(bare)
        more_s = _processor_s([script, "--help"]) - python_s
        if more_s <= max(0.2, 10 * python_s):
            return
    raise AssertionError(
        f"moaa --help takes {more_s * 1000:.0f} ms of processor time more than `python -c pass`"
    )


def _processor_s(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
