"""Label Harmonizer: keeps word-level labels consistent across receipts."""

__version__ = "0.1.0"
