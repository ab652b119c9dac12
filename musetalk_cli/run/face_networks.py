"""What finds, parses and encodes faces, as a command asks for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from musetalk_cli.config import RunConfig
from musetalk_cli.face.dwpose import Dwpose
from musetalk_cli.face.haar import HaarFinder
from musetalk_cli.face.landmarks import Finder
from musetalk_cli.face.parsing import FaceParser
from musetalk_cli.face.people import DwposeFinder
from musetalk_cli.nets.bundle import FaceNetwork, open_face_network
from musetalk_cli.nets.device import resolve_device
from musetalk_cli.nets.files import RANDOM, resolve
from musetalk_cli.nets.generator import FaceEncoder
from musetalk_cli.nets.published import DWPOSE, FACE_PARSING, find_dwpose, find_face_parsing, require
from musetalk_cli.preparation.inputs import FaceNetworks, Parse
from musetalk_cli.run.prepare_outputs import DetectorName, ParserName

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

BATCH_ON_CUDA, BATCH_ON_CPU = 8, 1
"""Faces encoded at once: a CPU gains nothing from more, and every face of the full VAE takes 0.3 GB."""


def load_face_networks(
    run: RunConfig, detector: DetectorName, parser: ParserName, *, find: bool = True
) -> tuple[FaceNetworks, FaceNetwork]:
    """Load what a preparation needs; what is taken for want of weights is announced.

    Latents are kept, so the networks compute in fp32 unless another precision is asked for.

    Args:
        run: Where things are and what computes; without a model it is v1.5.
        detector: What finds the face; `auto` is DWPose where its file is there, else OpenCV's cascade.
        parser: What draws the mask; `auto` is the face parser where it is there, else the landmarks' outline.
        find: False where the landmarks are known.

    Returns:
        The networks, and the network that makes the latents.

    Raises:
        MuseTalkError: Weights or the device are not there, or cannot be used.
    """
    if run.precision == "auto":
        log.debug("precision: fp32 (latents are kept)")
        run = replace(run, precision="fp32")
    finder = _finder(run, detector) if find else None
    parse = _parser(run, parser)
    network = open_face_network(run)
    networks = FaceNetworks(
        encode=FaceEncoder(network),
        finder=finder,
        parse=parse,
        batch_size=BATCH_ON_CUDA if network.device.type == "cuda" else BATCH_ON_CPU,
        fingerprint=_fingerprint(run, network, finder, parse),
    )
    return networks, network


def _finder(run: RunConfig, detector: DetectorName) -> Finder:
    """What finds the face; the rough way is announced."""
    path = find_dwpose(run.models.path)
    if detector == "dwpose":
        path = require(DWPOSE, run.models.path)[0]
    if path is None or detector == "haar":
        if detector == "auto":
            log.warning(
                "No DWPose in %s: the face is found by OpenCV's frontal cascade. That is a rough fallback: "
                "the box is approximate, and mouth, tilt and profile are not seen. "
                "`musetalk models download dwpose` fetches DWPose.",
                run.models.path,
            )
        return HaarFinder()
    return DwposeFinder(Dwpose(path, resolve_device(run.device).type))


def _parser(run: RunConfig, parser: ParserName) -> Parse | None:
    """What labels the pixels of a crop; None where the mask is the outline of the landmarks."""
    folder = find_face_parsing(run.models.path)
    if parser == "segformer":
        require(FACE_PARSING, run.models.path)
    if folder is None or parser == "outline":
        if parser == "auto":
            log.warning(
                "No face parser in %s: the mask is the outline of the landmarks. "
                "`musetalk models download face-parsing` fetches it.",
                run.models.path,
            )
        return None
    return FaceParser(folder, resolve_device(run.device))


def _fingerprint(
    run: RunConfig, network: FaceNetwork, finder: Finder | None, parse: Parse | None
) -> dict[str, str | Sequence[str]]:
    """What tells that networks are the same as in an earlier run: files by size and date, format, device."""
    files: list[Path] = []
    if network.name != RANDOM:
        found = resolve(network.name, run.models.path)
        files += [found.vae_config, found.vae_weights]
    if finder is not None and finder.name == DWPOSE:
        files += require(DWPOSE, run.models.path)
    if parse is not None:
        files += require(FACE_PARSING, run.models.path)
    return {
        "files": [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files],
        "format": str(network.dtype),
        "device": str(network.device),
        "torch": torch.__version__,
    }
