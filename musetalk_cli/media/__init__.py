"""Sound and pictures in and out of files, through ffmpeg by argument list and never a shell."""
