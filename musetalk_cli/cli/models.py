"""`musetalk models list|download|verify`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.render import print_json, print_table, put, say
from musetalk_cli.config import DEFAULT_MODEL

app = typer.Typer(help="See, fetch and check model weights.", no_args_is_help=True)


@app.command("list")
@common_options()
def list_(common: Common) -> None:
    """List the published models and the tools of preparation, and which of their files are there."""
    from musetalk_cli.nets.published import PUBLISHED

    root = common.run.models.path
    files = [
        (name, str(part), part.find(root), part.repository)
        for name, parts in PUBLISHED.items()
        for part in parts
    ]
    if common.json:
        print_json(
            [
                {
                    "model": name,
                    "file": file,
                    "path": None if path is None else str(path),
                    "repository": repository,
                }
                for name, file, path, repository in files
            ]
        )
        return
    rows = [
        [name, file, "missing" if path is None else path.name, repository]
        for name, file, path, repository in files
    ]
    print_table(f"Models in {root}", ["model", "file", "here", "repository"], rows)


@app.command()
@common_options()
def download(
    common: Common,
    name: Annotated[
        str, typer.Argument(metavar="v15|v1|dwpose|face-parsing", help="Published model or tool.")
    ] = DEFAULT_MODEL,
) -> None:
    """Fetch the missing files of a published model or of a tool of preparation."""
    from musetalk_cli.nets.published import TOOLS
    from musetalk_cli.nets.published import download as fetch

    root = common.run.models.path
    fetch(name, root, lambda file, number, count: say(f"{number}/{count} {file}"))
    if common.json:
        print_json({"model": name, "folder": str(root)})
    else:
        put(f"{'Tool' if name in TOOLS else 'Model'} {name} is complete in {root}.")


@app.command()
@common_options()
def verify(
    common: Common,
    name: Annotated[
        str,
        typer.Argument(
            metavar="v15|v1|demo|dwpose|face-parsing|PATH", help="Model or tool to load and check."
        ),
    ] = DEFAULT_MODEL,
) -> None:
    """Load a model, or a tool of preparation, tensor by tensor, and say whether everything fits."""
    from musetalk_cli.nets.published import TOOLS

    if name in TOOLS:
        _verify_tool(common, name)
    else:
        _verify_model(common, name)


def _verify_model(common: Common, name: str) -> None:
    from musetalk_cli.nets.bundle import open_bundle

    bundle = open_bundle(replace(common.run, model=name))
    count = sum(
        p.numel() for net in (bundle.unet, bundle.vae, bundle.audio_encoder) for p in net.parameters()
    )
    if common.json:
        print_json({"model": name, "version": bundle.version, "parameters": count})
    else:
        put(f"Model {name} is complete: {bundle.version}, {count:,} parameters.")


def _verify_tool(common: Common, name: str) -> None:
    from musetalk_cli.nets.device import resolve_device
    from musetalk_cli.nets.published import DWPOSE, require

    files = require(name, common.run.models.path)
    device = resolve_device(common.run.device)
    if name == DWPOSE:
        from musetalk_cli.face.dwpose import Dwpose

        Dwpose(files[0], device.type)
    else:
        from musetalk_cli.face.parsing import FaceParser

        FaceParser(files[0].parent, device)
    if common.json:
        print_json({"model": name, "folder": str(files[0].parent)})
    else:
        put(f"Tool {name} is complete in {files[0].parent}.")
