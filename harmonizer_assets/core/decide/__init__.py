"""Decide: outliers with their reasons, and the patterns among them."""
