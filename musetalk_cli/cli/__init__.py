"""The command line: one file per command, parse -> config -> product -> render, and no torch at import."""
