"""What pyproject.toml cannot say: every package of mibench, the configuration as one more, and its references."""

import shutil
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py


class WithReferences(build_py):
    """Puts ``references.bib`` into the package, where ``python -m mibench bib`` finds it outside a checkout."""

    def run(self) -> None:
        """Build the packages and copy the file."""
        super().run()
        if not self.editable_mode:
            shutil.copyfile("references.bib", Path(self.build_lib, "mibench", "references.bib"))


setup(
    packages=[*find_namespace_packages(include=["mibench*", "hydra_plugins*"]), "mibench.conf"],
    cmdclass={"build_py": WithReferences},
)
