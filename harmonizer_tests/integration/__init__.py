"""Tests of the core with real stores and real HTTP."""
