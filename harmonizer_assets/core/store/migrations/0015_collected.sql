-- Partitions whose batch jobs were collected, until a run has brought them up to date.
CREATE TABLE llm_collected (
    submission_id VARCHAR NOT NULL, label_type VARCHAR NOT NULL, merchant_key VARCHAR NOT NULL
);
