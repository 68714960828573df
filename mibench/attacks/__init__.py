"""Attacks: one file per method, each a :class:`mibench.attacks.base.Attack` that writes ``reconstruct``."""
