"""Priors: generators trained on the attacker's public data, one file per kind."""
