"""What several metrics share, one family a file; a metric's file holds what it adds."""
