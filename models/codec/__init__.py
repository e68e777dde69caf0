"""The learned codec: transforms, prior, entropy coding, bitstream."""
