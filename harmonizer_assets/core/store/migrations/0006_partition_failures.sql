-- Partitions that could not be computed, until they are.
CREATE TABLE partition_failures (
    asset VARCHAR NOT NULL, label_type VARCHAR NOT NULL, merchant_key VARCHAR NOT NULL,
    error VARCHAR NOT NULL, traceback VARCHAR NOT NULL, run_id VARCHAR NOT NULL,
    failed_at TIMESTAMPTZ NOT NULL
);
