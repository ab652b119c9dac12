"""From sound to finished frames: windows, voice gate, batches, image steps. No thread, no source, no sink."""
