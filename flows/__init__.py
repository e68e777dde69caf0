"""What Prefect runs: splits the work, hands it to an engine, reports. No pixels, no tensors."""
