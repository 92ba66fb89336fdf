"""Storage of answers: on disk at once, in the database a little later."""
