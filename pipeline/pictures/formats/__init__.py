"""Readers of single formats, where neither Pillow nor OpenCV gives all that a file holds."""
