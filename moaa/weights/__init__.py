"""Model weights from a folder, the hub, a Python package or S3, as folders that engines load."""
