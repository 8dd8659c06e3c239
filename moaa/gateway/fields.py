"""The fields of a gateway's file, with their descriptions, for docs/gateway.md.

python -m moaa.gateway.fields docs/gateway.md      rewrites the tables of that page
"""

from __future__ import annotations

import sys
from pathlib import Path

from moaa.gateway.config import GatewayConfig
from moaa.recipe.fields import table, write

START = "<!-- fields: written by `python -m moaa.gateway.fields docs/gateway.md` -->"


def tables() -> str:
    """Return all fields as Markdown."""
    return table(GatewayConfig)


if __name__ == "__main__":
    write(Path(sys.argv[1]), START, tables())
