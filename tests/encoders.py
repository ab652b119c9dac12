"""Stand-ins for the audio encoder, where what it makes of a sound does not matter."""

import torch


def deaf(bundle=None):
    """An encoder whose rows are zeros: what is heard does not matter, when it is asked for does."""
    layers, width = (bundle.layers, bundle.token_width) if bundle else (1, 1)
    return lambda requests: [torch.zeros(len(request.rows), layers, width) for request in requests]


def positions(requests):
    """An encoder whose rows say where in the stream they come from: two layers, one channel.

    The stream is a ramp, so the first sample of a row is its position; a row that was not in the
    window is 0.
    """
    return [_positions(request) for request in requests]


def _positions(request):
    assert len(request.samples) // 320 <= request.length, "what does not fit is not heard"
    rows = torch.zeros(request.length, 2, 1)
    heard = torch.from_numpy(request.samples[: len(request.samples) // 320 * 320 : 320].copy())
    rows[: len(heard), :, 0] = heard[:, None]
    return rows[request.rows.start : request.rows.stop]
