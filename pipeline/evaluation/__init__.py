"""Codecs against each other."""
