-- What decides between two batches, and between a batch, a correction and a deletion; see
-- core/store/ranks.py. `arrival` tells one arrival of a batch from the next.
CREATE TABLE batch_order (
    batch_id VARCHAR NOT NULL, batch_time TIMESTAMPTZ NOT NULL, turn BIGINT NOT NULL,
    name VARCHAR NOT NULL, is_clocked BOOLEAN NOT NULL, arrival VARCHAR
);
-- Of what came before nobody knows any more which times were those of a clock.
INSERT INTO batch_order
SELECT batch_id, batch_time, 0, coalesce(name, ''), true, NULL FROM batches
UNION ALL
SELECT batch_id, batch_time, 0, name, true, NULL FROM batch_resends
UNION ALL
SELECT operation_id, done_at, 0, '', true, NULL FROM label_operations;
CREATE OR REPLACE VIEW batch_ranks AS
SELECT batch_id, last.batch_time, last.turn, last.name, last.is_clocked
FROM (
    SELECT batch_id, max(struct_pack(batch_time, turn, name, is_clocked)) AS last
    FROM batch_order GROUP BY batch_id
);
DROP TABLE batch_resends;
ALTER TABLE deletions ADD COLUMN turn BIGINT DEFAULT 0;
ALTER TABLE deletions ADD COLUMN is_clocked BOOLEAN DEFAULT true;
UPDATE deletions SET is_clocked = false WHERE holds_until >= '9000-01-01 00:00:00+00'::TIMESTAMPTZ;
