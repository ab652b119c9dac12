"""Whisper's log-mel spectrogram and encoder: a window of sound to rows of hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from musetalk_cli.nets.device import exact_convolutions
from musetalk_cli.nets.graphed_encoder import GraphedForward, Record
from musetalk_cli.nets.staging import Staging
from musetalk_cli.timeline import ROWS_PER_WINDOW, SAMPLES_PER_ROW
from musetalk_cli.types import Samples

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperAttention, WhisperEncoderLayer

    from musetalk_cli.nets.bundle import Bundle


WINDOWS_ON_CUDA = 8
"""Windows the encoder takes at once."""
WINDOWS_ON_CPU = 1
"""Several at once gain little there, and in bf16 a window's last bits would depend on its company."""


class LogMel:
    """Whisper's log-mel spectrogram on a device, without waiting for it.

    The arithmetic of the library's feature extractor, whose filters and sizes it takes; that one goes through
    host memory, and a device that is busy with frames would be waited for at every hop.

    Args:
        extractor: Where filters and sizes come from.
        device: Where to compute.
    """

    def __init__(self, extractor: WhisperFeatureExtractor, device: torch.device) -> None:
        self._size: int = extractor.n_fft
        self._hop: int = extractor.hop_length
        self._filters = torch.from_numpy(extractor.mel_filters).to(device, torch.float32).T
        self._window = torch.hann_window(self._size, device=device)

    def __call__(self, sounds: Sequence[Samples], rows: int = ROWS_PER_WINDOW) -> Tensor:
        """Spectrograms of windows, each as loud as 8 (in powers of ten) below its own loudest at the least.

        Args:
            sounds: float32 `[n]` at 16 kHz each; what is longer than a window is cut, and what is shorter is
                followed by silence.
            rows: Encoder rows of a window.

        Returns:
            float32 `[windows, bins, 2 * rows]` on the device.
        """
        return self.of(torch.from_numpy(_waves(sounds, rows)).to(self._window.device))

    def of(self, waves: Tensor) -> Tensor:
        """The same of windows that are on the device, float32 `[windows, 320 * rows]`, with their silence."""
        spectrum = torch.stft(waves, self._size, self._hop, window=self._window, return_complex=True)
        power = (spectrum[..., :-1].abs() ** 2).contiguous()
        mel = (self._filters @ power).clamp(min=1e-10).log10()
        return (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8) + 4) / 4


def _waves(sounds: Sequence[Samples], rows: int) -> Samples:
    """Sounds in windows of so many rows, float32 `[windows, 320 * rows]`: cut, or followed by silence."""
    waves = np.zeros((len(sounds), rows * SAMPLES_PER_ROW), np.float32)
    for wave, samples in zip(waves, sounds, strict=True):
        wave[: len(samples)] = samples[: len(wave)]
    return waves


class EncodeRequest(NamedTuple):
    """A window of sound, and which of its rows somebody needs.

    Attributes:
        samples: float32 `[n]` at 16 kHz, no longer than the window.
        rows: Neighbouring rows of the window, each in `0..length - 1`.
        length: All rows of the window, at most 1500; silence follows the samples to its end.
    """

    samples: Samples
    rows: range
    length: int = ROWS_PER_WINDOW


class AudioEncoder:
    """Log-mel and the Whisper encoder with all its hidden states, for the rows that are needed.

    The arithmetic of the library's encoder, over its modules. The last layer is computed for the needed rows
    alone, which attend to all of them. In a window shorter than 30 s the later positions are not used.

    Args:
        bundle: The networks.
        at_once: Windows that go through the networks together, at the most; None is what suits the device.
    """

    def __init__(self, bundle: Bundle, at_once: int | None = None) -> None:
        self._mel = LogMel(bundle.feature_extractor, bundle.device)
        self._encoder = bundle.audio_encoder
        self._dtype = bundle.dtype
        self._staging = Staging(bundle.device)
        self._at_once = at_once or (WINDOWS_ON_CUDA if bundle.device.type == "cuda" else WINDOWS_ON_CPU)
        self._graphed: dict[tuple[int, int], GraphedForward] = {}

    @property
    def graphed(self) -> tuple[tuple[int, int], ...]:
        """Numbers of windows and their lengths, in rows, for which there are CUDA graphs; ascending."""
        return tuple(sorted(self._graphed))

    def forget(self) -> None:
        """Let go of the graphs and their memory."""
        self._graphed.clear()

    @torch.inference_mode()
    def capture(self, record: Record, request: EncodeRequest, windows: int) -> None:
        """Capture a graph for windows that come together; it serves all that need as many rows or fewer.

        Args:
            record: Captures it.
            request: One of the windows, which was encoded before in this number.
            windows: How many come together, at most as many as go through the networks together.

        Raises:
            RuntimeError: It cannot be captured.
        """
        rows = np.zeros((windows, len(request.rows)), np.int64)
        waves = _waves([request.samples] * windows, request.length)
        self._graphed[windows, request.length] = GraphedForward(
            record, self.forward, self._staging, waves, rows
        )

    @torch.inference_mode()
    def __call__(self, requests: Sequence[EncodeRequest]) -> list[Tensor]:
        """Encode windows.

        Returns:
            For each the needed rows, float32 `[rows, layers, width]` on the device, 50 a second: the
            embedding, the output of every layer but the last, and that of the encoder, which is the last
            layer's after a norm.
        """
        found: dict[int, Tensor] = {}
        for length in {request.length for request in requests}:
            alike = [number for number, request in enumerate(requests) if request.length == length]
            for first in range(0, len(alike), self._at_once):
                some = alike[first : first + self._at_once]
                found.update(zip(some, self._encode([requests[n] for n in some], length), strict=True))
        return [found[number] for number in range(len(requests))]

    def _encode(self, requests: Sequence[EncodeRequest], length: int) -> list[Tensor]:
        """The needed rows of windows of one length, which go through the networks together."""
        # each gives as many rows as the one that needs most, or as a graph gives
        count = max(len(request.rows) for request in requests)
        graphed = self._graphed.get((len(requests), length))
        if graphed is not None and graphed.count >= count:
            count = graphed.count
        else:
            graphed = None
        starts = [min(request.rows.start, length - count) for request in requests]
        taken = np.arange(count) + np.asarray(starts)[:, None] + length * np.arange(len(starts))[:, None]
        waves = _waves([request.samples for request in requests], length)
        given = graphed(waves, taken) if graphed else self.forward(*self._staging(waves, taken))
        return [
            found[request.rows.start - start : request.rows.stop - start]
            for found, request, start in zip(given, requests, starts, strict=True)
        ]

    @exact_convolutions
    @torch.inference_mode()
    def forward(self, waves: Tensor, rows: Tensor) -> Tensor:
        """Encode windows that are on the device.

        What is launched depends on the shapes alone, and nothing waits, so a CUDA graph can hold it.

        Args:
            waves: float32 `[B, 320 * N]` at 16 kHz, N rows each.
            rows: int64 `[B, m]`, the needed ones, row r of window b as `b * N + r`.

        Returns:
            float32 `[B, m, layers, width]`, as a call gives them.
        """
        encoder = self._encoder
        mel = self._mel.of(waves).to(self._dtype)
        embedding = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(mel)))).transpose(1, 2)
        hidden = embedding + encoder.embed_positions.weight[: embedding.shape[1]]
        states = [_take(hidden, rows)]
        *layers, last = encoder.layers
        for layer in layers:
            hidden = _run_layer(layer, hidden, None)
            states.append(_take(hidden, rows))
        states.append(encoder.layer_norm(_run_layer(last, hidden, rows)))
        return torch.stack(states, dim=2).float()


def _take(hidden: Tensor, rows: Tensor | None) -> Tensor:
    """Rows of hidden states `[B, N, width]`, numbered through all windows; None is all of them."""
    if rows is None:
        return hidden
    return hidden.flatten(0, 1).index_select(0, rows.flatten()).view(*rows.shape, hidden.shape[-1])


def _run_layer(layer: WhisperEncoderLayer, hidden: Tensor, rows: Tensor | None) -> Tensor:
    """The output of a layer for some rows of its input, as `_take` takes them."""
    normed = layer.self_attn_layer_norm(hidden)
    hidden = _take(hidden, rows) + _attend(layer.self_attn, _take(normed, rows), normed)
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
