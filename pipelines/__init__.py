"""The pipelines: how the components hang together, compiled for Kubeflow or run on one machine."""
