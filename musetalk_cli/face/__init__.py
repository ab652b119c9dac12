"""Where a face is, and which of its pixels may change."""
