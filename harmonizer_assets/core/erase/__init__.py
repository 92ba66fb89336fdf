"""Erase: deletion of words and labels, with their traces outside the tables that hold them."""

from harmonizer_assets.core.erase.deletion import Deletion
from harmonizer_assets.core.erase.erase import may_quote
from harmonizer_assets.core.erase.texts import DeletedTexts

__all__ = ["DeletedTexts", "Deletion", "may_quote"]
