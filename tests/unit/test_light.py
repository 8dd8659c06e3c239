"""`moaa --help` is instant: it imports nothing that it does not show."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "aiohttp",
    "boto3",
    "botocore",
    "if_verifiable",
    "jinja2",
    "kfp",
    "kubernetes",
    "lm_eval",
    "nltk",
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
    code = (
        "import sys; sys.argv = ['moaa', 'ask', '--help']\n"
        "from moaa.cli import main\n"
        "try: main()\n"
        "finally: print(*sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "--endpoint" in out
    assert set(HEAVY) & {name.split(".")[0] for name in out.splitlines()[-1].split()} <= {
        "pydantic"
    }  # typer's own way to read types


def test_importing_the_library_is_light() -> None:
    code = (
        "import sys, moaa, moaa.errors, moaa.ledger\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {*HEAVY, "typer"} & set(loaded)


def test_benchmarks_import_their_libraries_when_they_are_played() -> None:
    """lm-eval and the checkers of instructions are the optional extra `evaluate`."""
    code = "import sys, moaa.benchmarks.table; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "moaa" in loaded
    assert not {"datasets", "if_verifiable", "langdetect", "lm_eval", "nltk"} & set(loaded)
