"""Where a model lies: its name, its folder, the files in it, and its card. Nothing here loads a network."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from musetalk_cli import strict_json
from musetalk_cli.errors import ModelError
from musetalk_cli.nets.embedded import DEMO, embedded_models
from musetalk_cli.nets.published import LAYOUTS
from musetalk_cli.strict_json import JsonError
from musetalk_cli.text import PROGRESS
from musetalk_cli.timeline import WINDOW_LIMITS, WINDOW_RANGE

log = logging.getLogger(__name__)

RANDOM = "random-v15"
MODELS = (*LAYOUTS, DEMO, RANDOM)
"""The names a model can be asked for by, besides the path of a bundle."""

CARD_FILE = "bundle.json"
_MAX_JSON_BYTES = 4 << 20
_CARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_MAX_CPU_BATCH = 64


@dataclass(frozen=True, slots=True)
class Card:
    """What a bundle says of itself in `bundle.json`, where it has one.

    Attributes:
        name: Its name; `demo` is the family of the embedded networks.
        cpu_precision: The format it may run in on a processor that computes in that format itself.
        cpu_batch: Frames a batch on a CPU shall have, 1..64. More are faster where the networks are small;
            large ones gain nothing and take memory for each.
        window_s: Seconds of sound that the audio encoder hears at once in a stream, 3..30. Less is cheaper;
            how much suffices is for an evaluation of the networks to say.
    """

    name: str | None = None
    cpu_precision: Literal["fp32", "bf16"] = "fp32"
    cpu_batch: int = 4
    window_s: Fraction = WINDOW_RANGE[1]


NO_CARD = Card()
"""What a bundle without a card says: nothing."""


@dataclass(frozen=True, slots=True)
class BundleFiles:
    """The files of a bundle, all of them there.

    Attributes:
        name: What the bundle was asked for by.
        version: `v15` or `v1`.
        card: What the bundle says of itself.
    """

    name: str
    version: str
    card: Card
    unet_config: Path
    unet_weights: Path
    vae_config: Path
    vae_weights: Path
    whisper_config: Path
    whisper_preprocessor: Path
    whisper_weights: Path


def resolve(model: str, models_dir: Path) -> BundleFiles:
    """Find the files of a model.

    Args:
        model: `v15`, `v1`, `demo`, or the path of a bundle folder; one with both versions is taken as v1.5.
        models_dir: The models folder, itself a bundle. The demo bundle is its `demo/`, or the embedded one
            where it has none.

    Raises:
        ModelError: There is no such model, a file is missing, or the card is broken.
    """
    if model == RANDOM:
        raise ModelError(f"{RANDOM} is made of random numbers and has no files.")
    folder = _folder_of(model, models_dir)
    version = model if model in LAYOUTS else _version_in(folder)
    found = {role: part.find(folder) for role, part in LAYOUTS[version].parts().items()}
    missing = [str(part) for role, part in LAYOUTS[version].parts().items() if found[role] is None]
    if missing:
        raise ModelError(
            f"Model {model} is incomplete: {folder} holds no {', no '.join(missing)}.", _hint(model, version)
        )
    files = {role: path for role, path in found.items() if path is not None}
    return BundleFiles(model, version, read_card(folder), **files)


def tell_others(files: BundleFiles) -> None:
    """Say in one line which weights of a bundle are not the published ones, as far as sizes tell."""
    others = ", ".join(others_by_size(files))
    if others and files.name in LAYOUTS:
        log.warning(
            "Model %s is not as published, and is used as it is: the size of %s is another. "
            "`musetalk models download %s` brings the published files; --model PATH means these.",
            *(files.name, others, files.name),
        )
    elif others:
        log.log(
            PROGRESS, "Model %s has networks of its own, which are used as they are: %s.", files.name, others
        )


def others_by_size(files: BundleFiles) -> list[str]:
    """Weights of a bundle whose sizes say that they are not the published ones.

    A bundle with a card is somebody's own, and says so itself.

    Returns:
        The names of the files.
    """
    if files.card != NO_CARD:
        return []
    parts = LAYOUTS[files.version].parts()
    weights = [(parts[role], getattr(files, role)) for role in parts if role.endswith("_weights")]
    sizes = {(part, source.name): source.pin.bytes for part, _ in weights for source in part.sources()}
    return [
        path.name
        for part, path in weights
        if (size := sizes.get((part, path.name))) is not None and size != path.stat().st_size
    ]


def is_demo(model: str, models_dir: Path) -> bool:
    """True for the demo networks: by name, or where the folder's card says so.

    Raises:
        ModelError: There is no such model, or its card is broken.
    """
    if model in {DEMO, RANDOM}:
        return model == DEMO
    return read_card(_folder_of(model, models_dir)).name == DEMO


def family(model: str, card: Card) -> str:
    """What an avatar records as the name of the model it was made for.

    Args:
        model: What the model was asked for by.
        card: Its card.

    Returns:
        `demo` for the demo networks and no other ones, else the known name or that of the bundle's folder.
    """
    if DEMO in {model, card.name}:
        return DEMO
    name = Path(model).name
    return name if name != DEMO else str(Path(model).absolute())


def read_card(folder: Path) -> Card:
    """Read what a bundle says of itself; a bundle without a card says nothing.

    Raises:
        ModelError: The card cannot be read, is not JSON, or a value in it is none that is known.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        return NO_CARD
    data = read_object(path, "the card of a bundle")
    name, precision = data.get("name"), data.get("cpu_precision", "fp32")
    if name is not None and not (isinstance(name, str) and _CARD_NAME.fullmatch(name)):
        raise ModelError(
            f"{path} is broken: name is {_short(name)}, not up to 64 letters, digits, '.', '_' and '-'."
        )
    if precision not in ("fp32", "bf16"):
        raise ModelError(f"{path} is broken: cpu_precision is {_short(precision)}, not fp32 or bf16.")
    batch = data.get("cpu_batch", NO_CARD.cpu_batch)
    if type(batch) is not int or not 1 <= batch <= _MAX_CPU_BATCH:
        raise ModelError(f"{path} is broken: cpu_batch is {_short(batch)}, outside 1..{_MAX_CPU_BATCH}.")
    window = data.get("window_s", float(NO_CARD.window_s))
    low, high = WINDOW_RANGE
    if type(window) not in (int, float) or not low <= window <= high:
        raise ModelError(f"{path} is broken: window_s is {_short(window)}, outside {WINDOW_LIMITS}.")
    return Card(name, precision, batch, Fraction(str(window)))


def read_object(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Args:
        path: The file.
        what: What it should be, for the message.

    Raises:
        ModelError: It cannot be read, is too large, is not JSON, or holds something else.
    """
    try:
        data = strict_json.read(path, _MAX_JSON_BYTES)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except JsonError as error:
        raise ModelError(f"{path} {error}.") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} is not {what}: its top level is not an object.")
    return data


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _folder_of(model: str, models_dir: Path) -> Path:
    """The folder of a model that has files, absolute; it may be incomplete."""
    if model in LAYOUTS:
        return models_dir.absolute()
    if model == DEMO:
        own = models_dir / DEMO
        return (own if _is_folder(own) else (embedded_models() or models_dir) / DEMO).absolute()
    folder = Path(model).absolute()
    if not (model and _is_folder(folder)):
        raise ModelError(
            f"There is no model {model}: it is no known name, and {folder} is no folder.",
            f"Use {', '.join(MODELS)} or the path of a bundle folder.",
        )
    return folder


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # the name is longer than a path can be
        return False


def _version_in(folder: Path) -> str:
    layouts = {version: layout.unet_config.folder for version, layout in LAYOUTS.items()}
    return next((version for version, name in layouts.items() if (folder / name).is_dir()), "v15")


def _hint(model: str, version: str) -> str:
    if model == DEMO:
        return "The demo networks come with the program; install it again."
    fetch = f"`musetalk models download {version}` fetches the published files"
    if model in LAYOUTS:
        return f"{fetch}; --models-dir names the models folder."
    return f"{fetch}; a bundle has the same folders as an upstream models folder."
