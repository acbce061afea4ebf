"""Captioned images of a user: a folder, a table or parquet files, read as one kind of source."""
