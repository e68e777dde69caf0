"""The page engine: templates, charts, galleries and words for numbers."""
