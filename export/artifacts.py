"""The artifacts of one checkpoint: each made, named by its content, and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from export import graph, parity, precision, sensitivity
from export.evidence import Photos
from export.parity import ACCURACY, Accuracy
from export.plan import made_from, plan_from_onnx
from runtime.bundle import Artifact, Patch, Precision, Profile, Verdict
from runtime.engines import ENGINES
from runtime.errors import UserError
from runtime.fidelity import hints
from runtime.files import sha256_of

if TYPE_CHECKING:
    import onnx

    from train.checkpoint import Checkpoint
    from train.network import FacetModel

TOOLS: dict[Precision, tuple[str, ...]] = {
    "fp32": ("torch", "onnx"),
    "fp16": ("torch", "onnx"),
    "int8": ("torch", "onnx", "nncf"),
}
GRAPH_ENGINES = ("onnxruntime", "openvino")
# Photos on which a half graph's range is measured.
RANGE_PHOTOS = 16
# On which the float32 graph is checked before others are made of it.
CHECKED_PHOTOS = 8
# When the gate refuses an int8 graph: photos by which its tensors are ranked, the time for it, and the share of them
# that may be in float32 in the end, beyond which there would be little left of int8.
RANKING_PHOTOS = 8
RANKING_LIMIT_S = 600.0
MOST_PUT_BACK = 0.5


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What artifacts are made for, and judged by."""

    engines: tuple[str, ...] = GRAPH_ENGINES
    """Judge every graph."""
    profile: Profile = field(default_factory=Profile)
    """Of every plan."""
    accuracy: Accuracy = ACCURACY


class Job(NamedTuple):
    """One artifact to make: a graph where `library` is empty, else a plan."""

    precision: Precision
    library: str = ""
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class Made:
    """An artifact and where its file lies until it is committed to the bundle."""

    artifact: Artifact
    path: Path

    def marked(self, made_from: str) -> Made:
        """The same, with the digest of what it was made from."""
        return Made(artifact=msgspec.structs.replace(self.artifact, made_from=made_from), path=self.path)

    @property
    def falls_short(self) -> bool:
        """Whether an engine refused it in its own way of computing; one that is only tried beside that may be."""
        return any(
            one.state == "refused" and one.hint == hints(one.engine, self.artifact.precision)[0]
            for one in self.artifact.verdicts
        )


def jobs(precisions: Sequence[Precision], plans: Sequence[tuple[str, str]]) -> list[Job]:
    """The graphs asked for, then the plans: from the half graph where there is one, which is where GPUs are fast.

    Args:
        plans: library and target of each.
    """
    graphs = [Job(name) for name in dict.fromkeys(precisions)]
    sources = [name for name in dict.fromkeys(precisions) if name == "fp16" or "fp16" not in precisions]
    return graphs + [Job(name, *plan) for plan in dict.fromkeys(plans) for name in sources]


def make(
    model: FacetModel,
    page: Checkpoint,
    photos: Photos,
    wanted: Sequence[Job],
    scratch: Path,
    *,
    terms: Terms = Terms(),
    tell: Callable[[str], None] = lambda state: None,
) -> Iterator[tuple[Job, Made]]:
    """Make and judge each artifact, its file in `scratch`.

    Args:
        tell: told what is going on, while one artifact takes its time.
    """
    full = graph.graph(model, page)
    if any(job.precision != "fp32" for job in wanted):
        tell("the float32 graph: gate")
        _check(full, photos, scratch)
    graphs: dict[str, Made] = {}
    for job in wanted:
        if job.library:
            source = graphs[job.precision]
            # What no engine here may serve is no source for a plan, which nothing could judge.
            if not source.artifact.refused:
                yield job, _plan(job, source, photos, scratch, terms)
            continue
        tried: list[Made] = []
        for candidate in _candidates(job.precision, full, photos, tell):
            path = scratch / f"{job.precision}.{len(tried)}.onnx"
            tried.append(_graph(job.precision, candidate, photos, path, terms))
            for made in tried:
                if made is not best(tried):
                    made.path.unlink(missing_ok=True)  # a dozen of ConvNeXt-Base would fill a disk
            if not tried[-1].falls_short:
                break
        graphs[job.precision] = best(tried)
        yield job, graphs[job.precision]


def best(tried: Sequence[Made]) -> Made:
    """The last, where it falls short nowhere; else the first that some engine passed, which has most of its precision
    left; else the last."""
    if not tried[-1].falls_short:
        return tried[-1]
    return next((made for made in tried if not made.artifact.refused), tried[-1])


def _check(full: onnx.ModelProto, photos: Photos, scratch: Path) -> None:
    """Raise UserError where the float32 graph is not the trained network, before another precision is made of it.

    Within int8's limits one wrong block in thirty-six would pass.
    """
    import onnx

    path = scratch / "check.onnx"
    onnx.save(full, path)
    verdict = parity.judge(path, "fp32", GRAPH_ENGINES[0], "", photos.evidence.few(CHECKED_PHOTOS))
    path.unlink()
    if verdict.state == "refused":
        raise UserError(
            f"the exported graph is not the trained network: {verdict.reason}\n"
            "see on which engine, with the same command and: --precision fp32"
        )


class Candidate(NamedTuple):
    """A graph that may pass the gate."""

    model: onnx.ModelProto
    kept_float: tuple[str, ...] = ()


def _candidates(
    precision_: Precision, full: onnx.ModelProto, photos: Photos, tell: Callable[[str], None]
) -> Iterator[Candidate]:
    """The graph at that precision; at int8 also, one after the other, with ever more of its tensors in float32."""
    if precision_ == "fp32":
        yield Candidate(full)
        return
    if precision_ == "fp16":
        yield Candidate(precision.to_fp16(full, list(islice(photos.calibration, RANGE_PHOTOS))))
        return
    tell("int8: calibration")
    seen = count(1)
    quantised = precision.to_int8(
        full, photos.calibration, advance=lambda: tell(f"int8: calibration, photo passes: {next(seen)}")
    )
    tell("int8: gate")
    yield Candidate(quantised, _float_names(quantised))
    tensors = sensitivity.quantised_tensors(quantised)
    sample_NHWC = photos.evidence.few(RANKING_PHOTOS).photos_NHWC
    ranked = sensitivity.costs(
        full,
        quantised,
        sample_NHWC,
        limit_s=RANKING_LIMIT_S,
        advance=lambda done, left_s: tell(f"int8: what {done} of {len(tensors)} tensors cost, {left_s:.0f} s left"),
    )
    back = 1
    # Those that the time for ranking did not reach stay as they are.
    while back <= min(len(ranked), MOST_PUT_BACK * len(tensors)):
        tell(f"int8: gate, {back} of {len(tensors)} tensors in float32")
        dearest = [cost.tensor for cost in ranked[:back]]
        model = sensitivity.put_back(full, quantised, dearest)
        yield Candidate(model, tuple(dict.fromkeys([*dearest, *_float_names(model)])))
        back *= 2


def _float_names(model: onnx.ModelProto) -> tuple[str, ...]:
    return tuple(node.name for node in sensitivity.float_layers(model))


def _graph(precision_: Precision, candidate: Candidate, photos: Photos, path: Path, terms: Terms) -> Made:
    import onnx

    onnx.save(candidate.model, path)
    verdicts = (
        parity.judge(path, precision_, name, hint, photos.evidence, accuracy=terms.accuracy)
        for name in terms.engines
        for hint in hints(name, precision_)
    )
    return _made(
        path,
        Job(precision_),
        engines=terms.engines,
        built_with={name: version(name) for name in TOOLS[precision_]},
        kept_float=candidate.kept_float,
        signed=precision.signed_patches(path.read_bytes()) if precision_ == "int8" else (),
        verdicts=tuple(verdicts),
    )


def _plan(job: Job, source: Made, photos: Photos, scratch: Path, terms: Terms) -> Made:
    path = scratch / f"{job.precision}-{job.library}-{job.target}.plan"
    plan = plan_from_onnx(
        source.path,
        path,
        package=ENGINES[job.library].package,
        target=job.target or None,
        profile=terms.profile,
        patches=source.artifact.signed,
    )
    verdicts = (
        parity.judge(
            path,
            job.precision,
            job.library,
            hint,
            photos.evidence,
            accuracy=terms.accuracy,
            batch=plan.profile.max_batch,
        )
        for hint in hints(job.library, job.precision)
    )
    return _made(
        path,
        job,
        engines=(job.library,),
        built_with={plan.library: plan.version},
        made_from=made_from(
            source.artifact.sha256,
            library=plan.library,
            version=plan.version,
            target=job.target,
            profile=plan.profile,
        ),
        profile=plan.profile,
        kept_float=source.artifact.kept_float,
        verdicts=tuple(verdicts),
    )


def _made(
    path: Path,
    job: Job,
    *,
    engines: tuple[str, ...],
    built_with: dict[str, str],
    kept_float: tuple[str, ...],
    signed: tuple[Patch, ...] = (),
    verdicts: tuple[Verdict, ...],
    profile: Profile | None = None,
    made_from: str = "",
) -> Made:
    sha256 = sha256_of(path)
    artifact = Artifact(
        file=".".join(filter(None, ("model", job.precision, job.target, sha256[:8], path.suffix[1:]))),
        sha256=sha256,
        bytes=path.stat().st_size,
        precision=job.precision,
        target=job.target,
        engines=engines,
        built_with=built_with,
        profile=profile,
        kept_float=kept_float,
        signed=signed,
        made_from=made_from,
        verdicts=verdicts,
    )
    return Made(artifact=artifact, path=path)
