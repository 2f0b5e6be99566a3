"""The command line: one file a command; each reads options, calls the package, prints."""
