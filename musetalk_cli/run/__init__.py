"""What a command does, whoever asks for it: generate, realtime, prepare; what they default to and report."""
