"""Training and sweeps."""
