"""Loops that several attacks share, one family a file; a paper's file holds what it adds."""
