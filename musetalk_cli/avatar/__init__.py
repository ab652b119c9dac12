"""Avatars: what one is in memory and on disk, the folder of avatars, and the import of MuseTalk folders."""
