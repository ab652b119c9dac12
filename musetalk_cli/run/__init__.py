"""What a command does, whoever asks for it: generate, realtime, batch, prepare; defaults and reports."""
