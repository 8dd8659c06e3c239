"""What the commands of `moaa.cli` do; each module is imported when one of its commands runs."""
