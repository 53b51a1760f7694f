"""Photos to probabilities to labels, through one bundle: the one thing that every front uses."""

# B batch, H height, W width, K classes

from __future__ import annotations

import importlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import BoundedSemaphore
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from runtime import images, machine, plans, tuned
from runtime.bundle import Artifact, Attribute, Bundle, Category, Preprocess, Verdict, checked_file, load, rebuild
from runtime.engines import ENGINES, Engine, EngineOptions, open_engine, require
from runtime.engines.cuda import gpu_here, why_no_gpu
from runtime.errors import UserError
from runtime.headers import PhotoError
from runtime.tuned import Tuned

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self

# int8 is the fastest on a CPU and fp16 the slowest (it is emulated there); a GPU is at home in fp16.
CPU_ORDER = ("int8", "fp32", "fp16")
GPU_ORDER = ("fp16", "int8", "fp32")
# Photos at a time on a CPU, each of whose streams takes a batch of its own: more adds memory and latency, not speed.
BATCH = 4
# More is a slip: a library would go down with what it asks the system for.
MOST_THREADS = 1024


class Answer(NamedTuple):
    """A label and its probability, 0-1."""

    label: str
    confidence: float
    others: tuple[Answer, ...] = ()
    """The next best, where more than one was asked for."""


class Choice(NamedTuple):
    """An artifact, the engine to run it on, and what the gate said of the two."""

    artifact: Artifact
    engine: str
    verdict: Verdict
    tuned: Tuned | None = None
    """Where it is what was found fastest on this machine."""

    def __str__(self) -> str:
        how = "tuned" if self.tuned else ""
        return " ".join(filter(None, (self.artifact.precision, "on", self.engine, self.verdict.hint, how)))

    @property
    def identity(self) -> tuple[object, ...]:
        """All that a photo's answers hang on, beside the photo and those that are in its batch."""
        return self.artifact.sha256, self.engine, self.verdict.hint


class Predictor:
    """One bundle on one engine. Make it with `open`, enter it with `with`; any number of threads may use it, of which
    as many are answered at once as it has streams."""

    def __init__(self, folder: Path, bundle: Bundle, engine: Engine, choice: Choice, streams: int) -> None:
        self.folder = folder
        self.bundle = bundle
        self.choice = choice
        self._engine = engine
        self._streams = streams
        self._turns = BoundedSemaphore(streams)
        self._stack = ExitStack()
        self._is_open = False

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        engine: str = "auto",
        precision: str | None = None,
        threads: int | None = None,
        streams: int = 1,
    ) -> Predictor:
        """The bundle in `folder` on `engine`; UserError when no artifact there may serve it.

        Args:
            threads: of the CPU, in all; by default the engine's own choice.
            streams: how many threads are to be answered at once, on a CPU each by its share of the cores; of several,
                as many as `tune` found best.
        """
        for what, number in {"streams": streams, "threads": 1 if threads is None else threads}.items():
            if type(number) is not int or not 1 <= number <= MOST_THREADS:
                raise UserError(f"{what} must be a whole number from 1 to {MOST_THREADS}, got {number!r}")
        folder = Path(folder)
        bundle = load(folder)
        choice = (fastest(bundle) if engine == "auto" and precision is None else None) or choose(
            bundle, engine=engine, precision=precision, folder=folder
        )
        if misfit := plans.misfit(choice.artifact, choice.engine):
            path = folder / choice.artifact.file
            raise UserError(f"{path} was {misfit}\n{plans.rebuild_here(folder, choice.artifact)}")
        path = checked_file(folder, choice.artifact.file, choice.artifact.sha256)
        if ENGINES[choice.engine].suffix == ".plan":
            streams = 1  # of a GPU
        elif choice.tuned:
            streams = min(streams, choice.tuned.streams)
        options = EngineOptions(
            threads=threads, streams=streams, hint=choice.verdict.hint, kept_as=choice.artifact.sha256
        )
        return cls(folder, bundle, open_engine(choice.engine, path, options), choice, streams)

    def __enter__(self) -> Self:
        try:
            _load(ENGINES[self.choice.engine].package)
            self._stack.enter_context(self._engine)
        except UserError:
            raise
        except Exception as err:
            raise UserError(
                f"{self.choice.engine} cannot open {self.choice.artifact.file} of bundle {self.bundle.slug!r}: "
                f"{_reason(err)}\n{rebuild(self.folder, self.choice.artifact.file)}"
            ) from err
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        with ExitStack() as turns:
            for _ in range(self._streams):  # what is under way in other threads ends first
                turns.enter_context(self._turns)
            self._stack.close()

    def __call__(
        self, photos: Iterable[Path | str | np.ndarray], category: str | None = None, *, top_k: int = 1
    ) -> list[dict[str, Answer]]:
        """Each photo's attributes, by name; a path is decoded, an array is uint8 RGB [H, W, 3].

        All photos go through as one batch. Raises PhotoError for a photo that cannot be read; UserError for what is no
        photo, and outside `with`.

        Args:
            category: which of the bundle's categories the photos are of, by name or slug, where it serves several.
            top_k: how many labels an attribute has, the likeliest first, the others in its answer's `others`.
        """
        import numpy as np

        if isinstance(photos, str | Path | bytes) or not hasattr(photos, "__iter__"):
            raise UserError(f"photos are given as a list, got {photos!r}\npass it as: [{str(photos)!r}]")
        if type(top_k) is not int or top_k < 1:
            raise UserError(f"top_k must be a whole number, 1 or more, got {top_k!r}")
        asked = self._asked(category)
        spec = self.bundle.preprocess
        fitted = [
            images.fit(_checked(photo), spec) if isinstance(photo, np.ndarray) else _read(photo, spec)
            for photo in photos
        ]
        return labelled(asked, self.probabilities(np.stack(fitted)), top=top_k) if fitted else []

    @property
    def engines(self) -> set[str]:
        """Those here that have an artifact which the gate let through."""
        verdicts = (verdict for artifact in self.bundle.artifacts for verdict in artifact.verdicts)
        return {one.engine for one in verdicts if one.state == "passed" and ENGINES[one.engine].installed()}

    @property
    def batch(self) -> int:
        """How many photos at a time it is best given: as found here, else what it was made for."""
        if self.choice.tuned:
            return self.choice.tuned.batch
        profile = self.choice.artifact.profile
        return profile.opt_batch if profile else BATCH

    def probabilities(self, images_BHWC: np.ndarray) -> dict[str, np.ndarray]:
        """By output name, float32 [B, K], for uint8 RGB images of the bundle's size."""
        with self._turns:
            if not self._is_open:
                raise UserError("the predictor is not open\nuse it inside of: with Predictor.open(...) as predictor:")
            try:
                found = self._engine.infer(images_BHWC)
            except Exception as err:
                how_many = f"{len(images_BHWC)} photos at a time"
                raise UserError(f"{self.choice.engine} failed, with {how_many}: {_reason(err)}") from err
        if wrong := self._misfit(found, len(images_BHWC)):
            raise UserError(
                f"{self.choice.artifact.file} of bundle {self.bundle.slug!r} {wrong}\n{rebuild(self.folder)}"
            )
        return found

    def _misfit(self, found: Mapping[str, np.ndarray], photos: int) -> str:
        """What of a graph's answers is not as its page says; empty where all is."""
        import numpy as np

        for category in self.bundle.categories:
            for attribute in category.attributes:
                probabilities_BK = found.get(attribute.output)
                if probabilities_BK is None:
                    return f"has no output {attribute.output!r}, which its page names"
                if probabilities_BK.shape != (photos, len(attribute.classes)):
                    shape, classes = list(probabilities_BK.shape), len(attribute.classes)
                    return f"answers {attribute.name} with {shape} where its page has {classes} classes"
                if not np.isfinite(probabilities_BK).all():
                    return f"answers {attribute.name} with what is no number"
        return ""

    def answers(self, images_BHWC: np.ndarray, category: str | None = None) -> list[dict[str, Answer]]:
        """Each image's attributes, by name, of one category, given by name or slug where the bundle serves several."""
        return labelled(self._asked(category), self.probabilities(images_BHWC))

    def _asked(self, category: str | None) -> Category:
        held = self.bundle.categories
        found = [one for one in held if category is None or one.called(category)]
        if len(found) == 1:
            return found[0]
        wrong = "serves several categories" if category is None else f"serves no category {category!r}"
        raise UserError(
            f"bundle {self.bundle.slug!r} {wrong}\ngive category=NAME, one of: {', '.join(one.name for one in held)}"
        )


def labelled(
    category: Category, outputs: Mapping[str, np.ndarray], rows: Sequence[int] | None = None, *, top: int = 1
) -> list[dict[str, Answer]]:
    """The category's attributes, by name, for each row of a graph's outputs [B, K], or for these rows alone.

    Args:
        top: how many labels each has, the further ones in `others`; of fewer classes all.
    """
    columns = []
    for attribute in category.attributes:
        probabilities_BK = outputs[attribute.output]
        if rows is not None:
            probabilities_BK = probabilities_BK[rows]
        if top == 1:
            chosen = decide(probabilities_BK, attribute.offsets)
            columns.append([Answer(attribute.classes[index], confidence) for index, confidence in chosen])
        else:
            columns.append([_answer(attribute, row) for row in ranked(probabilities_BK, attribute.offsets, top)])
    names = [attribute.name for attribute in category.attributes]
    return [dict(zip(names, answers, strict=True)) for answers in zip(*columns, strict=True)]


def decide(probabilities_BK: np.ndarray, offsets: tuple[float, ...] = ()) -> list[tuple[int, float]]:
    """Each row's class and its probability; offsets shift the choice in log space, never the probability."""
    chosen = _scores(probabilities_BK, offsets).argmax(axis=1)
    return [(int(index), float(row[index])) for index, row in zip(chosen, probabilities_BK, strict=True)]


def ranked(probabilities_BK: np.ndarray, offsets: tuple[float, ...], top: int) -> list[list[tuple[int, float]]]:
    """Each row's `top` best classes, or all where there are fewer, as `decide` has the first."""
    # Stable: of equals the first comes first, as for argmax.
    order_BK = (-_scores(probabilities_BK, offsets)).argsort(axis=1, kind="stable")[:, :top]
    return [
        [(int(index), float(row[index])) for index in order]
        for order, row in zip(order_BK, probabilities_BK, strict=True)
    ]


def _scores(probabilities_BK: np.ndarray, offsets: tuple[float, ...]) -> np.ndarray:
    import numpy as np

    if not offsets:
        return probabilities_BK
    scores_BK: np.ndarray = np.log(np.maximum(probabilities_BK, 1e-12)) + np.asarray(offsets, np.float32)
    return scores_BK


def _answer(attribute: Attribute, best: Sequence[tuple[int, float]]) -> Answer:
    first, *others = (Answer(attribute.classes[index], confidence) for index, confidence in best)
    return first._replace(others=tuple(others))


def choose(bundle: Bundle, *, engine: str, precision: str | None, folder: Path | None = None) -> Choice:
    """The artifact to serve: on `auto` only what the gate passed, on a named engine also what it could not run.

    Args:
        folder: the bundle's, for the command that an error names.
    """
    if engine != "auto":
        require(engine)
    tried = [name for name in ENGINES if engine in ("auto", name)]
    choices = [
        Choice(artifact, name, verdict)
        for name in tried
        if ENGINES[name].installed()
        for artifact in bundle.artifacts
        for verdict in artifact.verdicts
        if verdict.engine == name
        and (verdict.state == "passed" or (verdict.state == "unrun" and engine != "auto"))
        and precision in (None, artifact.precision)
    ]
    if not choices:
        wanted = f"{precision or 'passed'} artifact{'' if engine == 'auto' else f' for {engine}'}"
        build = _build(folder or Path("bundles", bundle.slug), bundle, engine, precision)
        raise UserError(f"no {wanted} in bundle {bundle.slug!r}; it has: {_held(bundle)}\nbuild one with: {build}")
    choices.sort(key=lambda choice: (tried.index(choice.engine), *_preference(choice)))
    # A bundle may hold plans for several kinds of GPU. Where none fits, the best that there is says why.
    return next((choice for choice in choices if _fits(choice)), choices[0])


def fastest(bundle: Bundle) -> Choice | None:
    """What `tune` found on this machine for this very bundle, where the gate still lets it pass; else None."""
    found = tuned.read(bundle)
    if found is None or found.engine not in ENGINES or not ENGINES[found.engine].installed():
        return None
    ways = (
        Choice(artifact, verdict.engine, verdict, found)
        for artifact in bundle.artifacts
        for verdict in artifact.verdicts
        if artifact.sha256 == found.sha256 and verdict.state == "passed"
    )
    return next((way for way in ways if (way.engine, way.verdict.hint) == (found.engine, found.hint)), None)


def without_gpu(engine: str) -> str:
    """Why a plan of that engine runs on no GPU here; empty for an engine that reads graphs."""
    return why_no_gpu() if ENGINES[engine].suffix == ".plan" else ""


def _fits(choice: Choice) -> bool:
    if choice.engine == "openvino":
        from runtime.engines import ov

        return ov.computes_in(choice.verdict.hint)
    return not plans.misfit(choice.artifact, choice.engine)


def _load(package: str) -> None:
    """Import it in a thread of its own, which Ctrl-C does not reach: a library half imported fails from then on.

    And it starts on an empty stack. CPython gives memory back where the stack leaves a block of it; where NumPy's many
    small calls begin at such a place, they take twice the time.
    """
    with ThreadPoolExecutor(1) as thread:
        thread.submit(importlib.import_module, package).result()


def _reason(err: Exception) -> str:
    """What a library says went wrong, in one line; OpenVINO begins with where in its own source that was."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("Exception from ")), type(err).__name__)


def _read(photo: Path | str, spec: Preprocess) -> np.ndarray:
    """The photo, or PhotoError that names it: of several, it is one."""
    if not isinstance(photo, str | Path):
        raise UserError(f"a photo is given as a path or as an array, got {photo!r}")
    path = Path(photo)
    try:
        return images.load(path, spec)
    except PhotoError as err:
        raise PhotoError(f"{path}: {err}") from None


def _checked(image_HWC: np.ndarray) -> np.ndarray:
    """The caller's own array; OpenVINO would take floats for bytes, without a word."""
    if image_HWC.dtype != "uint8" or image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or not image_HWC.size:
        seen = f"{image_HWC.dtype} {list(image_HWC.shape)}"
        raise UserError(f"a photo given as an array must be uint8 RGB [H, W, 3], got {seen}")
    return image_HWC


def _preference(choice: Choice) -> tuple[bool, float, int]:
    """Smallest for the best: what loses nothing here that it did not where it passed, then the fastest where it was
    built, and among those never timed the usual order."""
    on_cpu = ENGINES[choice.engine].suffix == ".onnx"
    integers = on_cpu and choice.artifact.precision == "int8" and choice.verdict.hint != "float"
    order = CPU_ORDER if on_cpu else GPU_ORDER
    speed = -(choice.verdict.images_per_s or 0.0)
    return integers and machine.saturates_int8(), speed, order.index(choice.artifact.precision)


def _held(bundle: Bundle) -> str:
    held = [
        f"{artifact.precision} on {verdict.engine}{verdict.hint and f' {verdict.hint}'} ({verdict.state})"
        for artifact in bundle.artifacts
        for verdict in artifact.verdicts
    ]
    return ", ".join(held) or "none"


def _build(folder: Path, bundle: Bundle, engine: str, precision: str | None) -> str:
    """The command for an artifact that the engine reads; plans are made of the bundle's own graphs."""
    if engine == "auto" or ENGINES[engine].suffix == ".onnx":
        where = f"--category {bundle.slug} --out {shlex.quote(str(folder.parent))}"
        return f"python -m export.build --precision {precision or 'fp16'} {where}"
    graphs = {artifact.precision for artifact in bundle.artifacts if artifact.file.endswith(".onnx")}
    source = precision or next((name for name in GPU_ORDER if name in graphs), GPU_ORDER[0])
    target = f" --target {gpu_here() or 'sm89'}" if engine == "tensorrt-rtx" else ""
    return f"python -m export.engine {shlex.quote(str(folder))} --precision {source}{target}"
