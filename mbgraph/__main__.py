"""``python -m mbgraph``: the command line, also where scripts are not on the path."""

from mbgraph.cli.main import main

main()
