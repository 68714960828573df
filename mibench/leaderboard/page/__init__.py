"""The page: what it shows is computed, named, sorted and worded here; its scripts only draw."""

from mibench.leaderboard.page.reproduction import Reproduction

__all__ = ["Reproduction"]
