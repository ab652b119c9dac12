"""The networks: Whisper encoder, UNet and VAE, loaded from a bundle folder."""
