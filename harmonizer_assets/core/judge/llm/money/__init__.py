"""Prices of models, and budgets."""
