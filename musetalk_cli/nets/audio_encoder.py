"""Whisper's log-mel spectrogram and encoder: a window of sound to rows of hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from musetalk_cli.types import Samples

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

    from musetalk_cli.nets.bundle import Bundle


class LogMel:
    """Whisper's log-mel spectrogram on a device, without waiting for it.

    The arithmetic of the library's feature extractor, whose filters and sizes it takes; that one goes through
    host memory, and a device that is busy with frames would be waited for at every hop.

    Args:
        extractor: Where filters and sizes come from.
        device: Where to compute.
    """

    def __init__(self, extractor: WhisperFeatureExtractor, device: torch.device) -> None:
        self._length: int = extractor.n_samples
        self._size: int = extractor.n_fft
        self._hop: int = extractor.hop_length
        self._filters = torch.from_numpy(extractor.mel_filters).to(device, torch.float32).T
        self._window = torch.hann_window(self._size, device=device)

    def __call__(self, samples: Samples) -> Tensor:
        """Spectrogram of float32 `[n]` and the silence after it: float32 `[1, bins, 3000]`."""
        device = self._window.device
        host = torch.from_numpy(samples[: self._length])
        if device.type == "cuda":
            host = host.pin_memory()
        wave = torch.zeros(1, self._length, device=device)
        wave[0, : len(host)].copy_(host, non_blocking=True)
        spectrum = torch.stft(wave, self._size, self._hop, window=self._window, return_complex=True)
        power = (spectrum[..., :-1].abs() ** 2).contiguous()
        mel = (self._filters @ power).clamp(min=1e-10).log10()
        return (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8) + 4) / 4


class AudioEncoder:
    """Log-mel and the Whisper encoder with all its hidden states.

    Args:
        bundle: The networks.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._mel = LogMel(bundle.feature_extractor, bundle.device)
        self._encoder = bundle.audio_encoder
        self._dtype = bundle.dtype

    @torch.inference_mode()
    def __call__(self, samples: Samples) -> Tensor:
        """Encode one window.

        Args:
            samples: float32 `[n]` at 16 kHz, n <= 480000; silence follows it to 30 s.

        Returns:
            float32 `[1500, layers, width]` on the device, 50 rows a second: the embedding and each layer.
        """
        mel = self._mel(samples).to(self._dtype)
        states = self._encoder(mel, output_hidden_states=True, return_dict=True).hidden_states
        return torch.stack(states, dim=2)[0].float()
