"""Everything that would make a run fail later, looked at before it is paid for."""
