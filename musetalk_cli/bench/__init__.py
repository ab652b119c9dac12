"""Where every millisecond goes, on synthetic input: needs no file and no ffmpeg."""
