"""What a recipe needs from Kubernetes, as data: pods, images, Helm values, and what a compiled
pipeline was made from."""
