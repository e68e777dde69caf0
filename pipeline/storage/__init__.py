"""Objects wherever they are: list, read, write, create and delete them."""
