"""Answers that several homes share: a cache by URL, with leases on open questions."""
