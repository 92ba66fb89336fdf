-- What follows what is decided by numbers: a clock that was wrong once would decide for ever. Rows
-- without a number are older than all that have one.
ALTER TABLE suspicion_models ADD COLUMN number BIGINT;
ALTER TABLE run_history ADD COLUMN number BIGINT;
