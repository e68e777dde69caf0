"""New pictures from an autoencoder: samples, ways between two pictures, and what each number of the latent does."""
