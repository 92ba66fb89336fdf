"""Metadata for the web UI, and the server of reports beside it."""
