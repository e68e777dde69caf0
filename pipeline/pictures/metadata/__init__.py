"""What picture files say besides their pixels: reading it, fitting it to a format, writing it."""
