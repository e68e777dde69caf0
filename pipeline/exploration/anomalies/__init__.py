"""How unusual a picture is: by its latent, by what no network rebuilds, and by its oddest patch, with heat maps."""
