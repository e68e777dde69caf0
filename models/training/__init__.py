"""The training loop, its tasks, optimisers, data and checkpoints."""
