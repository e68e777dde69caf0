"""What latents are for: maps, clusters, neighbours, near-duplicates, anomalies and probes over a run's vectors."""
