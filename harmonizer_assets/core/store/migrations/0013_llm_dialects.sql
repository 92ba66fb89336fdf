CREATE TABLE llm_dialects (
    endpoint VARCHAR NOT NULL, model VARCHAR NOT NULL,
    length_parameter VARCHAR NOT NULL, left_out VARCHAR[] NOT NULL, answer_format VARCHAR NOT NULL,
    learned_at TIMESTAMPTZ NOT NULL
);
ALTER TABLE llm_usage ADD COLUMN estimated_calls BIGINT DEFAULT 0;
