"""Puts the dataset cards into the package; everything else stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CARDS = Path(__file__).parent / "datasets"


class BuildWithCards(build_py):
    """Copies ``datasets/*.toml`` to ``mbgraph/datasets``, where an installed package looks for them.

    An editable install copies nothing: the folder lies beside the package there.
    """

    def run(self) -> None:
        """Build, then add the cards."""
        super().run()
        if self.editable_mode:
            return
        place = Path(self.build_lib) / "mbgraph" / "datasets"
        self.mkpath(str(place))
        for card in sorted(CARDS.glob("*.toml")):
            shutil.copyfile(card, place / card.name)


setup(cmdclass={"build_py": BuildWithCards})
