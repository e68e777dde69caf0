"""The page engine: templates, charts, galleries and numbers for people."""
