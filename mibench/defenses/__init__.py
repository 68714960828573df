"""Defenses: one file per method, each overriding some of the eight hooks of :class:`mibench.defenses.base.Defense`."""
