"""The pipeline's stages, one file for each, named like its component."""
