"""Attacks: one file per method, each writing ``reconstruct`` (and ``prepare``) of :class:`mibench.attacks.base.Attack`."""
