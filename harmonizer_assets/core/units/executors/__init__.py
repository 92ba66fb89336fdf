"""Executors: who works on units."""
