"""The command line: one file per command, parse -> config -> run -> render, and no torch at import."""
