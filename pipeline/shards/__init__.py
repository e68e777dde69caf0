"""One shard: stages, budget, branches, pictures, suspects and the commit."""
