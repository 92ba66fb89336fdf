-- What an import leaves out of a file of another format has no row number there, but a place.
ALTER TABLE quarantine ADD COLUMN source_row VARCHAR;
