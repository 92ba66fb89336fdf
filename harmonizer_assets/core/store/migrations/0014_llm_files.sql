-- Whether the files of a batch job are deleted at the endpoint.
ALTER TABLE llm_batches ADD COLUMN files_deleted BOOLEAN DEFAULT false;
