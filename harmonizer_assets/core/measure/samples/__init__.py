"""Sample receipts with known errors."""
