"""Optimisation parts that two or more methods share."""
