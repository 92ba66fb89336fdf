"""The harmonising engine: plain Python, usable without Dagster."""
