"""Records that the steps share: labels, statuses, partitions, merchants, taxonomy, reports."""
