-- DuckDB's types of the columns that pass through, by table and name, where the files had types.
ALTER TABLE batches ADD COLUMN extra_types JSON;
