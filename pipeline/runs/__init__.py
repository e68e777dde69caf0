"""Runs: list, partition, plan, run, finish, redo and forecast."""
