"""What happens to pictures: storage, decoding, steps, metrics, tables, a shard's streaming run. No Prefect here."""
