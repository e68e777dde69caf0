"""The layout on disk of what a run leaves: plans, commits, tables, leases and records."""
