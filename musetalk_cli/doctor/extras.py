"""The optional parts of the program: which are installed whole, and which half."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator

from packaging.requirements import Requirement

from musetalk_cli.doctor.findings import Finding

PACKAGE = "musetalk-cli"
_NOT_FOR_USERS = {"dev", "training"}
_GIVES = {
    "camera": "a virtual camera for meetings",
    "cluster": "batches on several machines",
    "dwpose": "DWPose, which finds faces from the side too",
    "heic": "photographs as phones store them",
    "nvml": "the use of the GPU in the live panel",
    "serve": "the service, with WebRTC",
    "sound": "microphone and loudspeaker",
}
"""What each is for, in words."""

Installed = Callable[[str], str | None]
"""Gives the version of a package, or None where it is not there."""


def check_extras(requirements: Iterable[str], installed: Installed) -> Iterator[Finding]:
    """What is there of each optional part.

    One that is not installed is nobody's fault. One whose first package is there and others are not, or are
    too old, was installed in part.

    Args:
        requirements: As the package's metadata has them: `aiortc>=1.16; extra == "serve"`.
        installed: Tells what is there.
    """
    parts: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, requirements):
        for extra in _extras_of(requirement):
            parts.setdefault(extra, []).append(requirement)
    for extra in sorted(parts):
        yield _check(extra, parts[extra], installed)


def _extras_of(requirement: Requirement) -> Iterator[str]:
    """The extra that a requirement belongs to, where its marker holds here with it and not without."""
    marker = requirement.marker
    if marker is None or marker.evaluate({"extra": ""}):
        return
    words = str(marker).replace("'", '"').split('"')
    for extra in words[1::2]:
        if extra not in _NOT_FOR_USERS and marker.evaluate({"extra": extra}):
            yield extra


def _check(extra: str, requirements: list[Requirement], installed: Installed) -> Finding:
    name, gives = f"extra {extra}", _GIVES.get(extra, "an optional part")
    fix = f"pip install '{PACKAGE}[{extra}]'"
    versions = {requirement: installed(requirement.name) for requirement in requirements}
    if versions[requirements[0]] is None:
        return Finding(name, "ok", f"Not installed: {gives}.", fix)
    missing = [requirement.name for requirement, version in versions.items() if version is None]
    old = [
        f"{requirement.name} {version} (not {requirement.specifier})"
        for requirement, version in versions.items()
        if version is not None and not requirement.specifier.contains(version, prereleases=True)
    ]
    if missing or old:
        wrong = [f"{' and '.join(missing)} missing"] if missing else []
        wrong += [f"{', '.join(old)} of another version"] if old else []
        return Finding(name, "warning", f"Half-installed ({'; '.join(wrong)}): {gives}.", fix)
    return Finding(name, "ok", f"Installed: {gives}.")


def own_requirements() -> list[str]:
    """What the package's metadata asks for; nothing where it runs without being installed."""
    try:
        return importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def installed_version(name: str) -> str | None:
    """The version of a package, or None where it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
