"""Importers: words and labels from the formats of others; one file per format."""
