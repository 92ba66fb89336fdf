"""Calls: packed, sized, sent within the limits, and tried again."""
