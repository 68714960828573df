"""What pyproject.toml cannot say: every package of mibench and its Hydra plugin, and the configuration as one more."""

from setuptools import find_namespace_packages, setup

setup(packages=[*find_namespace_packages(include=["mibench*", "hydra_plugins*"]), "mibench.conf"])
