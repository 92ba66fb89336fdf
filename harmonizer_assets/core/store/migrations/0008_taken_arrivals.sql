-- What has been copied into the inbox from elsewhere: folders of a bucket, tables of a database.
CREATE TABLE taken_arrivals (
    source VARCHAR NOT NULL, item VARCHAR NOT NULL, version VARCHAR NOT NULL,
    taken_at TIMESTAMPTZ NOT NULL
);
