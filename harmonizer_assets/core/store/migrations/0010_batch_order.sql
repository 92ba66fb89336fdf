-- The folder's name: of two batches with equal times, the one with the later name wins.
ALTER TABLE batches ADD COLUMN name VARCHAR DEFAULT '';
-- Rows that a later batch had decided otherwise before this one came.
ALTER TABLE batches ADD COLUMN words_outdated BIGINT DEFAULT 0;
ALTER TABLE batches ADD COLUMN labels_outdated BIGINT DEFAULT 0;
-- The time that the batch came with, where it lay in the future; it counts from its arrival then.
ALTER TABLE batches ADD COLUMN time_given TIMESTAMPTZ;
-- Batches that came again with no other between: their rows hold as of the later time.
CREATE TABLE batch_resends (
    batch_id VARCHAR NOT NULL, batch_time TIMESTAMPTZ NOT NULL, name VARCHAR NOT NULL
);
-- What decides between two batches: the time of each batch's last arrival, then its name.
CREATE VIEW batch_ranks AS
SELECT batch_id, last.batch_time, last.name
FROM (
    SELECT batch_id, max(struct_pack(batch_time := batch_time, name := coalesce(name, ''))) AS last
    FROM (
        SELECT batch_id, batch_time, name FROM batches
        UNION ALL
        FROM batch_resends
    )
    GROUP BY batch_id
);
