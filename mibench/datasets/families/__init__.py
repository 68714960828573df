"""What several datasets share, one family a file; a dataset's file holds what it adds."""
