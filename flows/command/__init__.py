"""The commands of `darkroom`, by what they are about; each only says what it takes and who does it."""
