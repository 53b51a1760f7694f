"""What need not be made again: each artifact carries a digest of all that went into it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from export.plan import made_from
from runtime import bundle, files
from runtime.bundle import Profile
from runtime.errors import UserError
from runtime.plans import version_here

if TYPE_CHECKING:
    from export.artifacts import Job
    from runtime.bundle import Artifact
    from train.checkpoint import Checkpoint

# Options that change nothing in float32.
CALIBRATING = ("calibration_photos",)
# All that makes an artifact or judges it.
PACKAGES = ("facet-edge", "torch", "onnx", "onnxscript", "nncf", "onnxruntime", "openvino", "tensorrt-rtx", "tensorrt")


def digests(
    page: Checkpoint,
    weights: Path,
    data: Path,
    wanted: Sequence[Job],
    options: Mapping[str, object],
    *,
    calibration: Path | None = None,
) -> dict[Job, str]:
    """For each graph asked for, a digest of the weights, the photos, the options and the versions it comes of; the
    plans asked for with them have none of their own.

    Args:
        weights: the checkpoint's file, hashed afresh.
        data: the folder whose photos calibrate and judge, known by its tables and by its photos' sizes and times.
        options: of the build, as JSON can say them.
        calibration: the folder whose photos calibrate instead.
    """
    shared = hashlib.sha256()
    # What is not there is told when it is opened, or read.
    content = files.sha256_of(weights) if weights.is_file() else ""
    judging = {name: value for name, value in options.items() if name not in CALIBRATING}
    for part in (page.identity, content, json.dumps([judging, versions()], sort_keys=True)):
        shared.update(part.encode())
    for name in ("train.csv", "category_attributes.csv", "category_attributes.parquet"):
        if (data / name).is_file():
            shared.update((data / name).read_bytes())
    _add_photos(shared, data / "train_images")
    calibrated = shared.copy()
    calibrated.update(json.dumps([options.get(name) for name in CALIBRATING]).encode())
    if calibration:
        _add_photos(calibrated, calibration)
    found = {}
    for job in wanted:
        own = (shared if job.precision == "fp32" else calibrated).copy()
        own.update(job.precision.encode())
        found[job] = "" if job.library else own.hexdigest()
    return found


def _add_photos(digest: hashlib._Hash, folder: Path) -> None:
    digest.update(b"photos\0")
    for name, size, changed in _photos(folder):
        digest.update(f"{size} {changed} ".encode() + os.fsencode(name) + b"\0")


def standing(folder: Path, digests: Mapping[Job, str], profile: Profile) -> dict[Job, Artifact]:
    """The artifacts of the bundle in `folder` that would come out as they are; none where it does not verify."""
    if not (folder / bundle.PAGE).is_file():
        return {}
    try:
        page = bundle.verify(folder)
    except UserError:
        return {}
    by_digest = {artifact.made_from: artifact for artifact in page.artifacts if artifact.made_from}
    found = {
        job: by_digest[digest]
        for job, digest in digests.items()
        if digest in by_digest and not by_digest[digest].refused
    }
    graphs = {job.precision: artifact for job, artifact in found.items()}
    for job in digests:
        if (
            job.library
            and job.precision in graphs
            and (digest := _of_plan(job, graphs[job.precision], profile)) in by_digest
        ):
            found[job] = by_digest[digest]
    # A plan is built from its graph: where one of a precision is missing, all of it are made together.
    lacking = {job.precision for job in digests if job not in found}
    return {job: artifact for job, artifact in found.items() if job.precision not in lacking}


def _of_plan(job: Job, graph: Artifact, profile: Profile) -> str:
    """What export.engine too would know the plan by: it is the graph's, whatever that was made from."""
    return made_from(
        graph.sha256, library=job.library, version=version_here(job.library), target=job.target, profile=profile
    )


def versions() -> dict[str, str]:
    """Of each package that is installed here."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _photos(folder: Path | str, inside: str = "") -> list[tuple[str, int, int]]:
    """Name, size and time of change of each file, sorted, those of folders inside too, whose names come before."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found += _photos(entry.path, f"{inside}{entry.name}/")
                continue
            with suppress(OSError):  # a link that leads nowhere: as if it were not there
                state = entry.stat()
                found.append((f"{inside}{entry.name}", state.st_size, state.st_mtime_ns))
    return sorted(found)
