"""Erase: deletion of words and labels, with their traces outside the tables that hold them."""

from harmonizer_assets.core.erase.deletion import Deletion

__all__ = ["Deletion"]
