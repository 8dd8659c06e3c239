"""Ends an image's build where it cannot import what it holds: each installed library, then each
module of ours.

Of ours it passes over what needs a library that the image does not have on purpose (torch in the
core image).
"""

import importlib
import pkgutil
import sys
from importlib.metadata import packages_distributions

LAZILY = ["pyarrow.compute", "pyarrow.dataset", "pyarrow.parquet"]
"""What libraries and ours load when they are used."""
OURS = ["moaa", "components", "pipelines"]

installed = sorted(
    name for name in packages_distributions() if name.isidentifier() and not name.startswith("_")
)
for name in [*installed, *LAZILY]:
    importlib.import_module(name)
passed_over = []
for name in OURS:
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, f"{name}."):
        if found.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] in [*installed, *OURS]:
                raise
            passed_over.append(f"{found.name} ({error.name})")
print(
    f"imported {len(installed)} libraries and all of ours",
    *passed_over,
    sep="\n  but ",
    file=sys.stderr,
)
