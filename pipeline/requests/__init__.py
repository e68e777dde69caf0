"""What can be asked: forms, recipes, the catalogue of steps, and the Job."""
