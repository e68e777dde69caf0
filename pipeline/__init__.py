"""All that happens to pictures: storage, decoding, steps, metrics, tables, runs. No Prefect here."""
