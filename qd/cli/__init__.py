"""The command line: options in, one call of a command out."""
