"""Tests of functions and classes by themselves."""
