"""The common parts of partitioned steps: chunks, fingerprints, the executor."""
