"""The images the components run in. Compile with other references by MOAA_IMAGE_CORE and MOAA_IMAGE_SERVE."""

import os

from moaa import __version__

CORE = os.environ.get("MOAA_IMAGE_CORE", f"moaa/core:{__version__}")
SERVE = os.environ.get("MOAA_IMAGE_SERVE", f"moaa/serve:{__version__}")
