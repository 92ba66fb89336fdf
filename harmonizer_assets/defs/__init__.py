"""Dagster definitions: assets and their dependencies; the work itself is in `core`."""
