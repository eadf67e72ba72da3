"""The command line, which is a user of the library like any other."""
