"""The prompts of a run: read from their sources, deduplicated, kept away from the evaluation
prompts."""
