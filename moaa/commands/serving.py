"""`moaa gateway`."""

from __future__ import annotations

from pathlib import Path

from moaa.errors import RecipeError
from moaa.gateway.config import load_config, missing_keys
from moaa.gateway.keys import load_keys
from moaa.progress.terminal import out


def gateway(path: Path, *, check: bool) -> None:
    """Check the gateway's file, then serve until SIGTERM. `check`: only check it."""
    config = load_config(path)
    missing = missing_keys(config)
    if check:
        if config.keys_file and Path(config.keys_file).exists():
            load_keys(Path(config.keys_file))
        elif config.keys_file:
            missing.append(f"keys_file: {config.keys_file} does not exist.")
        out("\n".join([f"{path}: OK. It serves {', '.join(config.names)}.", *missing]))
        return
    if missing:
        raise RecipeError("\n".join(missing))
    from moaa.gateway.server import run

    run(config)
