"""From a video of a person to an avatar, in one pass over the source."""
