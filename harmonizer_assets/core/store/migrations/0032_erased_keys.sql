-- Keys of merchants are made of their names, and go like texts once no label has them any more.
ALTER TABLE pending_erasures ADD COLUMN is_key BOOLEAN DEFAULT false;
