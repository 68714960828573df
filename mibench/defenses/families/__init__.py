"""Loops that several defenses share, one family a file; a paper's file holds what it adds."""
