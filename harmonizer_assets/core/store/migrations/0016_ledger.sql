-- What was spent at endpoints, for budgets: per run and day, per batch job, per call for embeddings.
-- A null in usd is the cost of a model without a price. The unconfirmed part is what calls may have
-- cost at most whose usage nobody has said.
CREATE TABLE llm_ledger (
    entry VARCHAR NOT NULL, purpose VARCHAR NOT NULL, run_id VARCHAR NOT NULL,
    launch_id VARCHAR NOT NULL, backfill_id VARCHAR, day DATE NOT NULL,
    tokens BIGINT NOT NULL, usd DOUBLE, unconfirmed_tokens BIGINT NOT NULL, unconfirmed_usd DOUBLE
);
