"""Avatars: what one is, our folder, the import of MuseTalk folders, and preparation from a video."""
