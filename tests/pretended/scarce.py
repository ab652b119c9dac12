"""A device that has not enough memory."""

import torch

from musetalk_cli.nets.generator import Generator

NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB"


class Small(Generator):
    """Networks on a device that has memory for so many frames at once."""

    def __init__(self, bundle, most, stage):
        super().__init__(bundle)
        self.most = most
        self.stage = stage
        self.tried = []

    def need(self, stage, count):
        if stage == self.stage:
            self.tried.append(count)
            if count > self.most:
                raise torch.OutOfMemoryError(NO_MEMORY)

    def unet(self, tokens, latents):
        self.need("unet", len(tokens))
        return super().unet(tokens, latents)

    def draw(self, latents):
        self.need("vae", len(latents))
        return super().draw(latents)


def said(caplog):
    return [record.getMessage() for record in caplog.records if "memory" in record.getMessage()]
