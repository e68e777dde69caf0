"""How Prefect carries out shards: engines, states and blocks."""
