"""Pixel and codec steps, and the registry of all steps."""
