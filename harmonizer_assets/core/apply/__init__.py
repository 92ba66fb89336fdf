"""Apply: labels are corrected, every change is on record, and each can be undone."""
