"""Errors, registries, files: what every package may use, and what imports none of them."""
