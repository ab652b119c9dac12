"""How the embedded demo bundle and its avatars were made: drawn faces, synthesised speech, three stages.

Nothing in `musetalk_cli` imports this package. `python -m training` lists the steps.
"""
