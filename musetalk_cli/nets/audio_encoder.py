"""Whisper's log-mel spectrogram and encoder: a window of sound to rows of hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from musetalk_cli.types import Samples

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperAttention, WhisperEncoderLayer

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


class EncodeRequest(NamedTuple):
    """A window of sound, and which of its rows somebody needs.

    Attributes:
        samples: float32 `[n]` at 16 kHz, n <= 480000; silence follows it to 30 s.
        rows: Neighbouring rows of the window, each in 0..1499.
    """

    samples: Samples
    rows: range


class AudioEncoder:
    """Log-mel and the Whisper encoder with all its hidden states, for the rows that are needed.

    The arithmetic of the library's encoder, over its modules. The last layer is computed for the needed rows
    alone, which attend to all of them.

    Args:
        bundle: The networks.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._mel = LogMel(bundle.feature_extractor, bundle.device)
        self._encoder = bundle.audio_encoder
        self._dtype = bundle.dtype

    def __call__(self, requests: Sequence[EncodeRequest]) -> list[Tensor]:
        """Encode windows.

        Returns:
            For each the needed rows, float32 `[rows, layers, width]` on the device: 50 a second, of each the
            embedding, the output of every layer but the last, and the encoder's own output, which is that of
            the last after a norm.
        """
        return [self._rows(request) for request in requests]

    @torch.inference_mode()
    def _rows(self, request: EncodeRequest) -> Tensor:
        """Rows of one window."""
        encoder, rows = self._encoder, slice(request.rows.start, request.rows.stop)
        embedding = functional.gelu(encoder.conv1(self._mel(request.samples).to(self._dtype)))
        embedding = functional.gelu(encoder.conv2(embedding)).transpose(1, 2)
        hidden = embedding + encoder.embed_positions.weight
        states = [hidden[:, rows]]
        *layers, last = encoder.layers
        for layer in layers:
            hidden = _run_layer(layer, hidden, slice(None))
            states.append(hidden[:, rows])
        states.append(encoder.layer_norm(_run_layer(last, hidden, rows)))
        return torch.stack(states, dim=2)[0].float()


def _run_layer(layer: WhisperEncoderLayer, hidden: Tensor, rows: slice) -> Tensor:
    """The output of a layer `[B, rows, width]` for some rows of `hidden` `[B, N, width]`."""
    normed = layer.self_attn_layer_norm(hidden)
    hidden = hidden[:, rows] + _attend(layer.self_attn, normed[:, rows], normed)
    hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden))))
    if hidden.dtype == torch.float16:
        largest = torch.finfo(torch.float16).max - 1000
        hidden = hidden.clamp(-largest, largest)
    return hidden


def _attend(attention: WhisperAttention, rows: Tensor, everything: Tensor) -> Tensor:
    """What rows `[B, m, width]` take from all of them `[B, N, width]`."""

    def heads(states: Tensor) -> Tensor:
        split = states.view(*states.shape[:2], attention.num_heads, attention.head_dim)
        return split.transpose(1, 2).contiguous()

    taken = functional.scaled_dot_product_attention(
        # scaled before the product, as in the library: the other order is not the same in the last bits
        heads(attention.q_proj(rows) * attention.scaling),
        heads(attention.k_proj(everything)),
        heads(attention.v_proj(everything)),
        scale=1.0,
    )
    joined: Tensor = attention.out_proj(taken.transpose(1, 2).flatten(2))
    return joined
