"""Units: work that is cut out of a stage, so that other processes and machines can do it."""
