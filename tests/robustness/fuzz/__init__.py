"""Random damage, and damage on purpose, to every kind of file that is read from elsewhere."""
