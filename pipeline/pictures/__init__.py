"""From bytes to pixels and back: headers, decoding, encoding, metrics and hashes."""
