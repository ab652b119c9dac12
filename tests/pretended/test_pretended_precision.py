"""Where fp32 is asked for, also in part, it is computed as fp32 has it; what else the process does is not."""

import numpy as np
import torch

from musetalk_cli.nets.audio_encoder import AudioEncoder, EncodeRequest
from musetalk_cli.nets.generator import FaceEncoder, Generator


def test_no_convolution_in_fp32_may_be_rounded_to_tf32(gpu, on_gpu, monkeypatch):
    """The networks made again in fp32 of those in half among them."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    half, single = on_gpu(torch.float16), on_gpu()
    exact = Generator(half).exact()
    seen = []

    def observe(name, read, written):
        if name == "convolution":
            seen.append((read[1].dtype, torch.backends.cudnn.allow_tf32))

    gpu.observer = observe
    tokens = torch.zeros(1, 10 * single.layers, single.token_width, device="cuda")
    latents = torch.zeros(1, 8, 32, 32, device="cuda")
    works = [
        lambda: exact.unet(tokens, latents),
        lambda: exact.decode(latents[:, :4]),
        lambda: AudioEncoder(single)([EncodeRequest(np.zeros(1600, np.float32), range(5), 50)]),
        lambda: FaceEncoder(single)(np.zeros((1, 256, 256, 3), np.uint8)),
    ]
    for work in works:
        seen.clear()
        work()
        assert set(seen) == {(torch.float32, False)}
        assert torch.backends.cudnn.allow_tf32
