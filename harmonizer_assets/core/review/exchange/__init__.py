"""Exchange of what is under review with other tools: one file per format, one record for all."""
