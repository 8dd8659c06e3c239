"""Model weights: from a folder, a hub, a Python package or S3, to a folder that engines and
trainers read."""
