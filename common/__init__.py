"""What every package may use and which knows none of them: errors, registries, files."""
