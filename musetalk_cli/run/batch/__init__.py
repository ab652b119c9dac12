"""Many recordings in one call: a manifest, workers that keep what they load, and a file of results."""
