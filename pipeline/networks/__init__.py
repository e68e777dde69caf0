"""Networks over pictures: restorations, streams, autoencoders, latents and batches."""
