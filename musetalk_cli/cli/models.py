"""`musetalk models list|download|verify|convert`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.progress import BYTES, progress, size_text, stages
from musetalk_cli.cli.render import print_json, print_table, put, say
from musetalk_cli.config import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from musetalk_cli.nets.proof import Proof, Seen
    from musetalk_cli.nets.published import Part

app = typer.Typer(help="See, fetch, check and convert model weights.", no_args_is_help=True)


@app.command("list")
@common_options()
def list_(common: Common) -> None:
    """List what is published: which of its files are here, their sizes and licences."""
    from musetalk_cli.nets.proof import look
    from musetalk_cli.nets.published import PUBLISHED

    root = common.run.models.path
    files = [(name, seen) for name in PUBLISHED for seen in look(name, root)]
    if common.json:
        print_json([_listed(name, seen) for name, seen in files])
        return
    rows = [
        [name, seen.file, seen.look, _size(seen), _licence(seen), seen.part.repository]
        for name, seen in files
    ]
    print_table(f"Models in {root}", ["model", "file", "state", "size", "licence", "repository"], rows)


def _listed(name: str, seen: Seen) -> dict[str, object]:
    return {
        "model": name,
        "file": str(seen.part),
        "path": None if seen.path is None else str(seen.path),
        "state": seen.look,
        "bytes": seen.size,
        "published_bytes": seen.pin.bytes,
        "sha256": seen.pin.sha256,
        "licence": _licence(seen),
        "repository": seen.part.repository,
    }


def _licence(seen: Seen) -> str:
    from musetalk_cli.nets.pins import licence

    return licence(seen.part.repository)


def _size(seen: Seen) -> str:
    size = seen.pin.bytes if seen.size is None else seen.size
    return "unknown" if size is None else size_text(size)


@app.command()
@common_options()
def download(
    common: Common,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="One of v15, v1, taesd, dwpose, face-parsing.")
    ] = DEFAULT_MODEL,
) -> None:
    """Fetch what is missing or damaged of a published model, decoder or tool of preparation."""
    from musetalk_cli.nets.fetching import download as fetch
    from musetalk_cli.nets.published import LAYOUTS

    root = common.run.models.path
    with stages(BYTES) as advance:
        fetched = fetch(
            name, root, notice=say, told=lambda stage, *counts: advance(f"{stage} {name}", *counts)
        )
    if common.json:
        print_json({"model": name, "folder": str(root), "fetched": fetched.files, "bytes": fetched.bytes})
        return
    for file in fetched.files:
        say(f"fetched {file}")
    put(f"{'Model' if name in LAYOUTS else 'Tool'} {name} is complete in {root}.")


@app.command()
@common_options()
def verify(
    common: Common,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH",
            help="One of v15, v1, demo, taesd, dwpose, face-parsing, or a model's folder.",
        ),
    ] = DEFAULT_MODEL,
) -> None:
    """Compare every file of a model or tool with its SHA-256, then load it tensor by tensor."""
    from musetalk_cli.nets.published import DECODERS, TOOLS

    if name in {**DECODERS, **TOOLS}:
        _verify_tool(common, name)
    else:
        _verify_model(common, name)


def _verify_model(common: Common, name: str) -> None:
    from musetalk_cli.nets.embedded import DEMO
    from musetalk_cli.nets.files import RANDOM, resolve
    from musetalk_cli.nets.published import LAYOUTS

    proofs: list[Proof] = []
    if name not in {RANDOM, DEMO}:
        files = resolve(name, common.run.models.path)
        parts = tuple(LAYOUTS[files.version].parts().values())
        proofs = _proven(name, parts, files.unet_config.parents[1], published=name in LAYOUTS)

    from musetalk_cli.nets.bundle import open_bundle

    bundle = open_bundle(replace(common.run, model=name))
    count = sum(
        p.numel() for net in (bundle.unet, bundle.vae, bundle.audio_encoder) for p in net.parameters()
    )
    if common.json:
        plain = {"model": name, "version": bundle.version, "parameters": count}
        print_json(plain | {"files": [_proof(proof) for proof in proofs]})
    else:
        put(f"Model {name} is complete: {bundle.version}, {count:,} parameters.{_summary(proofs)}")


def _verify_tool(common: Common, name: str) -> None:
    from musetalk_cli.nets.device import resolve_device
    from musetalk_cli.nets.published import DECODERS, DWPOSE, PUBLISHED, require

    files = require(name, common.run.models.path)
    proofs = _proven(name, PUBLISHED[name], common.run.models.path, published=True)
    device = resolve_device(common.run.device)
    if name == DWPOSE:
        from musetalk_cli.face.dwpose import Dwpose

        Dwpose(files[0], device.type)
    elif name in DECODERS:
        from musetalk_cli.nets.device import resolve_dtype
        from musetalk_cli.nets.tiny_decoder import load_published

        load_published(name, common.run.models.path, device, resolve_dtype(common.run.precision, device))
    else:
        from musetalk_cli.face.parsing import FaceParser

        FaceParser(files[0].parent, device)
    if common.json:
        plain = {"model": name, "folder": str(files[0].parent)}
        print_json(plain | {"files": [_proof(proof) for proof in proofs]})
    else:
        put(f"Tool {name} is complete in {files[0].parent}.{_summary(proofs)}")


def _proven(name: str, parts: Sequence[Part], root: Path, *, published: bool) -> list[Proof]:
    """Every file read; where a published name was given, none may be another one.

    Raises:
        ModelError: A file cannot be read, or is another one.
    """
    from musetalk_cli.nets.proof import look_at, prove, refuse_others

    with progress(f"verify {name}", BYTES) as told:
        proofs = prove(look_at(parts, root), told)
    refuse_others(name, proofs, published=published)
    return proofs


def _proof(proof: Proof) -> dict[str, object]:
    seen = proof.seen
    return {"file": seen.file, "bytes": seen.size, "sha256": proof.sha256, "state": proof.state}


def _summary(proofs: Sequence[Proof]) -> str:
    """What the digests said, as sentences behind another one."""
    from musetalk_cli.nets.proof import State

    files = {
        state: [proof.seen.file for proof in proofs if proof.state == state] for state in get_args(State)
    }
    said = (
        f" {len(files['proven'])} of {len(proofs)} files have the digest they should have." if proofs else ""
    )
    said += f" No digest is known of {', '.join(files['unknown'])}." if files["unknown"] else ""
    return said + (f" Of its own are {', '.join(files['other'])}." if files["other"] else "")


@app.command()
@common_options()
def convert(
    common: Common,
    name: Annotated[str, typer.Argument(metavar="v15|v1|PATH", help="Model to convert.")] = DEFAULT_MODEL,
) -> None:
    """Write .safetensors beside the .pth and .bin files of a model: they load faster, and run no code."""
    from musetalk_cli.nets.bundle import settled
    from musetalk_cli.nets.conversion import convert as write

    model, device, dtype = settled(replace(common.run, model=name))
    made = write(model, common.run.models.path, device, dtype, say)
    if common.json:
        files = [] if made is None else [str(path) for path in made.files]
        seconds = (None, None) if made is None else (made.before_s, made.after_s)
        print_json({"model": name, "files": files, "load_before_s": seconds[0], "load_after_s": seconds[1]})
    elif made is None:
        put(f"Model {name} has .safetensors for all of its networks.")
    else:
        for path in made.files:
            put(f"{path} is written, and is taken from here on; the old file can be deleted.")
        put(f"Loading the model took {made.before_s:.1f} s, and takes {made.after_s:.1f} s with them.")
