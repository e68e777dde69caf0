"""Restorations against each other."""
