"""Rows, shards and the table that is built from them."""
