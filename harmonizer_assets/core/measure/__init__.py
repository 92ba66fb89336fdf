"""Measure: how well wrong labels are found, against labels that are known."""
