"""Dagster assets: thin wrappers that declare dependencies."""
