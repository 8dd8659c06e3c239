"""The pipeline's stages, one file each, named like its component."""
