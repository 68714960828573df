"""Metrics: one file per metric, each comparing a stored reconstruction with the task's truth."""
