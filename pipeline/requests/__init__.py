"""Requests: forms, recipes, the catalogue of steps, and the Job."""
