-- One row per run that changed the totals, and one per label type of it; label_type is null for
-- all labels together.
CREATE TABLE run_history (
    recorded_at TIMESTAMPTZ NOT NULL, run_id VARCHAR NOT NULL, label_type VARCHAR,
    labels BIGINT NOT NULL, outliers BIGINT NOT NULL, unresolved BIGINT NOT NULL
);
