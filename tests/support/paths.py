"""Where the repository's files are, so that tests run from any folder."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "pipelines" / "recipes"
DEMO = RECIPES / "demo.yaml"
PAPER = RECIPES / "paper-llama.yaml"
EVERY_RECIPE = sorted(RECIPES.glob("*.yaml"))
