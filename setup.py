"""Puts the project's data folders into the package; everything else stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SHIPPED = {"datasets": ("*.toml",), "benchmarks": ("*.toml", "speed/*.py")}


class BuildWithFolders(build_py):
    """Copies ``datasets/`` and ``benchmarks/`` into ``mbgraph/``, where an installed package looks for them.

    An editable install copies nothing: the folders lie beside the package there.
    """

    def run(self) -> None:
        """Build, then add the folders."""
        super().run()
        if self.editable_mode:
            return
        for folder, patterns in SHIPPED.items():
            for file in sorted(found for pattern in patterns for found in (ROOT / folder).glob(pattern)):
                place = Path(self.build_lib) / "mbgraph" / file.relative_to(ROOT)
                self.mkpath(str(place.parent))
                shutil.copyfile(file, place)


setup(cmdclass={"build_py": BuildWithFolders})
