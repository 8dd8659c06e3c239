"""S3: whole objects, conditional writes, listings, file transfers; a local S3 server for one
machine."""

from moaa.store.s3 import Missing, Store, split

__all__ = ["Missing", "Store", "split"]
