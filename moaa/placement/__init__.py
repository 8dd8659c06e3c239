"""What a recipe asks of Kubernetes, as data: pods, images, Helm values, what a compiled pipeline
was made of."""
