"""From groups to a paper: tables, figures and references."""
