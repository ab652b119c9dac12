"""What a command does, whoever asks for it: generate, realtime, batch, prepare; what they default to and report."""
