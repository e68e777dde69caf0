"""Files of several pictures: count, read and write them."""
