"""The `mbgraph` command: parse, call, print."""
