"""The work of the commands in `moaa.cli`; each module is imported when one of its commands runs."""
