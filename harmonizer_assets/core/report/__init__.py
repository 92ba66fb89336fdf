"""Report: the page of a run, its pictures, and what has changed since the last run."""
