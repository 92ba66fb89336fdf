-- Corrections that a table elsewhere has been given, and those that were taken back there.
CREATE TABLE pushed_corrections (
    target VARCHAR NOT NULL, correction_id BIGINT NOT NULL, undone BOOLEAN NOT NULL,
    pushed_at TIMESTAMPTZ NOT NULL
);
