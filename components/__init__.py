"""The pipeline's Kubeflow components: one folder a stage, a typed signature and one call into
`moaa.stages`."""
