"""Published tables: each run leaves one atomic version of them where others can read it."""
