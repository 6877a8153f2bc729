"""The command line of `python -m parity`: a command a file, with its options and its words."""
