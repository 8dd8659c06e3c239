"""S3: whole objects, listings, file transfers; and a local S3 server for one machine."""

from moaa.store.address import Missing, split
from moaa.store.errors import KeyNames
from moaa.store.s3 import Store

__all__ = ["KeyNames", "Missing", "Store", "split"]
