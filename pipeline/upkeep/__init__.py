"""What keeps a destination sound: verify, repair, collect, assemble."""
