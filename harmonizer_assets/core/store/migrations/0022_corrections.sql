-- What was done to labels after they had arrived; rows are only added. An operation is one apply,
-- undo or redo; `last_correction` is the highest number that it or an earlier one has given.
CREATE TABLE label_operations (
    operation_id VARCHAR NOT NULL, kind VARCHAR NOT NULL, actor VARCHAR NOT NULL, note VARCHAR,
    corrections BIGINT NOT NULL, last_correction BIGINT NOT NULL, done_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE label_corrections (
    correction_id BIGINT NOT NULL, operation_id VARCHAR NOT NULL,
    image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL, line_id BIGINT NOT NULL,
    word_id BIGINT NOT NULL, label VARCHAR NOT NULL, action VARCHAR NOT NULL, to_label VARCHAR,
    source VARCHAR NOT NULL, actor VARCHAR NOT NULL, reasoning VARCHAR, decided_by VARCHAR,
    outlier_score DOUBLE, policy VARCHAR, kind_id VARCHAR, answer_id VARCHAR, rule_id VARCHAR,
    run_id VARCHAR, model VARCHAR, prompt_version VARCHAR, redoes BIGINT,
    corrected_at TIMESTAMPTZ NOT NULL
);
-- The rows of `labels` that a correction has changed; null where there was no row, or is none now.
CREATE TABLE label_row_changes (
    correction_id BIGINT NOT NULL, image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL,
    line_id BIGINT NOT NULL, word_id BIGINT NOT NULL, label VARCHAR NOT NULL,
    merchant_key VARCHAR NOT NULL,
    row_before STRUCT(validation_status VARCHAR, merchant_name VARCHAR, extra JSON,
        batch_id VARCHAR, batch_time TIMESTAMPTZ),
    row_after STRUCT(validation_status VARCHAR, merchant_name VARCHAR, extra JSON,
        batch_id VARCHAR, batch_time TIMESTAMPTZ)
);
CREATE TABLE label_undos (correction_id BIGINT NOT NULL, operation_id VARCHAR NOT NULL);
CREATE VIEW corrections_in_force AS FROM label_corrections ANTI JOIN label_undos USING (correction_id);
-- Labels that have been corrected: what the last batch had said, and what they are by the correction.
CREATE VIEW corrected_labels AS
SELECT image_id, receipt_id, line_id, word_id, label,
    arg_min(struct_pack(v := c.row_before), correction_id).v AS row_before,
    arg_max(struct_pack(v := c.row_after), correction_id).v AS row_after
FROM label_row_changes c SEMI JOIN corrections_in_force USING (correction_id) GROUP BY ALL;
-- What decides between two batches, and between a batch and a correction: the later time.
CREATE OR REPLACE VIEW batch_ranks AS
SELECT batch_id, last.batch_time, last.name
FROM (
    SELECT batch_id, max(struct_pack(batch_time := batch_time, name := coalesce(name, ''))) AS last
    FROM (
        SELECT batch_id, batch_time, name FROM batches
        UNION ALL
        FROM batch_resends
        UNION ALL
        SELECT operation_id, done_at, '' FROM label_operations
    )
    GROUP BY batch_id
);
