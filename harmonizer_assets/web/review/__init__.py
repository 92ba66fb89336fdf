"""The review page: people look at doubted labels and answer, under `/review/` of the web UI."""
