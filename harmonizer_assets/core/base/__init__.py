"""Foundations of all other packages: the home, its settings, errors, progress, files."""
