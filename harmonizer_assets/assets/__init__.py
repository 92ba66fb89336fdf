"""Dagster assets: thin wrappers that say what depends on what."""
