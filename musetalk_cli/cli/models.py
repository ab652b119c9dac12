"""`musetalk models list|download|verify`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.render import print_json, print_table

app = typer.Typer(help="See, fetch and check model weights.", no_args_is_help=True)


@app.command("list")
@common_options()
def list_(common: Common) -> None:
    """List the published models and the files of each that are there."""
    from musetalk_cli.weights import LAYOUTS

    root = common.run.models.path
    files = [
        (name, str(part), part.find(root), part.repository)
        for name, layout in LAYOUTS.items()
        for part in layout.parts().values()
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
    name: Annotated[str, typer.Argument(metavar="v15|v1", help="Published model.")] = "v15",
) -> None:
    """Fetch the files of a published model that are missing."""
    from musetalk_cli.weights import download as fetch

    root = common.run.models.path
    fetch(name, root, lambda file, number, count: typer.echo(f"{number}/{count} {file}", err=True))
    if common.json:
        print_json({"model": name, "folder": str(root)})
    else:
        typer.echo(f"Model {name} is complete in {root}.")


@app.command()
@common_options()
def verify(
    common: Common,
    name: Annotated[str, typer.Argument(metavar="v15|v1|demo|PATH", help="Model to load and check.")] = "v15",
) -> None:
    """Load a model strictly, tensor by tensor, and say whether it fits together."""
    from musetalk_cli.nets.bundle import open_bundle

    bundle = open_bundle(replace(common.run, model=name))
    count = sum(
        p.numel() for net in (bundle.unet, bundle.vae, bundle.audio_encoder) for p in net.parameters()
    )
    if common.json:
        print_json({"model": name, "version": bundle.version, "parameters": count})
    else:
        typer.echo(f"Model {name} is complete: {bundle.version}, {count:,} parameters.")
