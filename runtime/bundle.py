"""A bundle: the folder that holds everything inference needs, and bundle.json, its one page of truth.

Artifacts are named by content and bundle.json is replaced last, in one step: a reader sees the old bundle or
the new one. `digest` covers the page itself, `sha256` every file it names, so that a changed byte is found.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

from runtime.engines import ENGINES
from runtime.errors import UserError
from runtime.files import refuse_pipe, replace_file, sha256_of

SCHEMA = 1
PAGE = "bundle.json"
# A router made of the data's own Category column: the category it is kept as, and its one attribute.
ROUTER, ROUTED_BY = "Router", "Category"
# The graph's own: an attribute called so would have its output taken.
RESERVED = frozenset({"images", "features"})
_HERE = Path(__file__).resolve().parent
_EXAMPLES = _HERE.parent / "examples"
Resize = Literal["squash", "crop", "letterbox"]
State = Literal["passed", "refused", "unrun"]
Precision = Literal["fp32", "fp16", "int8"]
LARGEST_BATCH = 1024
"""Of a plan, whose buffers hold so many photos."""
LARGEST_SIDE = 16384
"""Of the photos that a network takes: more is a slip, and no machine's memory."""


class Preprocess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a photo becomes the graph's input; `mean` and `std` (of 0-1 pixels) are applied inside the graph."""

    height: int
    width: int
    resize: Resize = "squash"
    """How photos of other proportions get that size: see `runtime.images.fit`."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not all(1 <= side <= LARGEST_SIDE for side in (self.height, self.width)):
            raise ValueError(f"photos of {self.height} x {self.width} px")
        if not all(0 < deviation < math.inf for deviation in self.std) or not all(map(math.isfinite, self.mean)):
            raise ValueError(f"pixels normalised by mean {self.mean} and std {self.std}")


class Attribute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question and its possible answers, in the order of the output's columns."""

    name: str
    classes: tuple[str, ...]
    output: str
    offsets: tuple[float, ...] = ()
    """Added to the log-probabilities before the argmax, one a class; empty for none."""

    def __post_init__(self) -> None:
        if not self.output or self.output in RESERVED:
            raise ValueError(f"attribute {self.name!r} has an output called {self.output!r}")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"attribute {self.name!r} needs classes, each once")
        if self.offsets and len(self.offsets) != len(self.classes):
            raise ValueError(f"attribute {self.name!r} has {len(self.offsets)} offsets, {len(self.classes)} classes")


class Category(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of product and what can be read off its photo."""

    name: str
    attributes: tuple[Attribute, ...]

    def __post_init__(self) -> None:
        try:
            slug_of(self.name)
        except UserError as err:
            raise ValueError(str(err).partition("\n")[0]) from None
        names = [attribute.name for attribute in self.attributes]
        if len(set(names)) != len(names):
            raise ValueError(f"category {self.name!r} has two attributes of one name: {', '.join(names)}")

    def called(self, name: str) -> bool:
        """Whether this is its name or its slug."""
        return name in (self.name, slug_of(self.name))


class Routes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes a bundle a router: an attribute whose classes lead to categories."""

    attribute: str
    to: dict[str, str]


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the gate said of one artifact on one engine with these options."""

    engine: str
    hint: str = ""
    state: State
    reason: str = ""
    figures: dict[str, float] = {}
    images_per_s: float | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The batch sizes that a plan accepts."""

    min_batch: int = 1
    """One photo must run alone."""
    opt_batch: int = 8
    """The size that kernels are chosen for."""
    max_batch: int = 32
    """What the buffers are sized for: 14 MB of pixels at 384 px; larger batches run in pieces."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_batch <= self.opt_batch <= self.max_batch <= LARGEST_BATCH:
            raise ValueError(
                f"a plan's batches must rise from 1 to {LARGEST_BATCH} at most; "
                f"got min {self.min_batch}, opt {self.opt_batch}, max {self.max_batch}"
            )


class Patch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, array_like=True):
    """Bytes in the place of as many others of a file."""

    at: int
    bytes: str
    """Two hexadecimal digits each."""

    def __post_init__(self) -> None:
        if self.at < 0 or not bytes.fromhex(self.bytes):
            raise ValueError(f"patch {self.bytes!r} at {self.at}")


class Artifact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One graph or plan: a file named by its content."""

    file: str
    sha256: str
    bytes: int
    precision: Precision
    target: str = ""
    """The GPU a plan was built for, such as `sm89`; empty for a graph, which runs anywhere."""
    engines: tuple[str, ...]
    built_with: dict[str, str]
    profile: Profile | None = None
    """A plan's."""
    kept_float: tuple[str, ...] = ()
    """Layers of an int8 graph that are float32: first those whose answer was put back until the gate passed it, the
    dearest first, then linear layers that read nothing quantised, such as the heads'."""
    signed: tuple[Patch, ...] = ()
    """Of an int8 graph with uint8 activations: what makes it the one with int8 that TensorRT reads in its place."""
    made_from: str = ""
    """A digest of all that went into it: what has the same is not made again."""
    verdicts: tuple[Verdict, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether no engine may serve it: some refused it, and none passed it."""
        states = {verdict.state for verdict in self.verdicts}
        return "refused" in states and "passed" not in states


class GoldenPhoto(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    file: str
    sha256: str


class Golden(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Photos and PyTorch's own answers to them, so that any machine can check any artifact."""

    photos: tuple[GoldenPhoto, ...]
    probabilities: dict[str, tuple[tuple[float, ...], ...]]
    """By output name: a row of class probabilities for each photo."""


class ValidationFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the bundle's own served network answers to validation photos, for `runtime.validation` to read; with what
    others, trained as it was, answer to training photos that they did not learn from."""

    file: str
    sha256: str
    photos: int
    answered_by: str
    """Such as `int8 on onnxruntime`."""
    out_of_fold: str = ""
    """SHA-256 of the checkpoint's file of those others' answers; empty where there are none."""
    photos_out_of_fold: int = 0
    """Training photos that are kept of it."""


class Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of bundle.json."""

    schema: int = SCHEMA
    slug: str
    categories: tuple[Category, ...]
    preprocess: Preprocess
    routes: Routes | None = None
    provenance: dict[str, str]
    golden: Golden
    artifacts: tuple[Artifact, ...]
    validation: ValidationFile | msgspec.UnsetType = msgspec.UNSET
    """Unset in bundles of before there was any, whose digest does not cover it."""
    digest: str = ""
    """SHA-256 of this page encoded with an empty digest."""

    @property
    def router(self) -> Category | None:
        """The category whose answer leads to the others, where the bundle is a router."""
        return router_of(self.categories, self.routes)

    @property
    def products(self) -> tuple[Category, ...]:
        """The categories that a photo can be of: all but a router that only tells the others apart."""
        return tuple(
            category for category in self.categories if category is not self.router or not tells_apart(category)
        )


class _SchemaOnly(msgspec.Struct):
    schema: int


def slug_of(name: str) -> str:
    """The folder name of a category: `Women Tops & Tunics` -> `women-tops-tunics`."""
    slug = re.sub(r"[\W_]+", "-", name.lower()).strip("-")
    if not slug:
        raise UserError(f"category {name!r} has no letter or digit to name a folder by")
    return slug


def router_of(categories: Sequence[Category], routes: Routes | None) -> Category | None:
    """The category by whose answer these routes go, or None where there are none."""
    if routes is None:
        return None
    names = ((category, {attribute.name for attribute in category.attributes}) for category in categories)
    return next((category for category, held in names if routes.attribute in held), None)


def tells_apart(category: Category) -> bool:
    """Whether it is a router made of the data's own Category column, which is no product itself."""
    return (category.name, [attribute.name for attribute in category.attributes]) == (ROUTER, [ROUTED_BY])


def name_of(categories: Sequence[Category]) -> str:
    """What a person calls a model of these categories."""
    return categories[0].name if len(categories) == 1 else "Joint"


def find(root: Path) -> dict[str, Path]:
    """Slug -> folder of every bundle directly under `root`, sorted by slug; `root` may be a bundle itself."""
    if (root / PAGE).is_file() or is_lost(root):
        return {root.resolve().name: root}
    if not root.is_dir():
        raise UserError(
            f"no bundles folder at {root}\nbuild one with: python -m export.build --out {shlex.quote(str(root))}"
        )
    found = {page.parent.name: page.parent for page in sorted(root.glob(f"*/{PAGE}"))}
    if not found:
        raise UserError(f"no bundle in {root}\nbuild one with: python -m export.build --out {shlex.quote(str(root))}")
    return found


def is_lost(folder: Path) -> bool:
    """Whether a bundle's graphs or plans lie there without their page, which loading it then tells."""
    left = (path for kind in ("onnx", "plan") for path in folder.glob(f"model.*.{kind}"))
    return not (folder / PAGE).is_file() and any(left)


def default_root() -> tuple[Path, bool]:
    """Where bundles are looked for when nobody says, and whether that is the set shipped as an example."""
    if Path("bundles").is_dir():
        return Path("bundles"), False
    for shipped in (_EXAMPLES / "bundles", _HERE / "shipped"):
        if shipped.is_dir():
            return shipped, True
    raise UserError(
        "no bundles/ folder here, and none is shipped with this copy of runtime/\n"
        "name one with: --bundles DIR, or build it with: python -m export.build"
    )


def load(folder: Path) -> Bundle:
    """The bundle in `folder`, its page checked; the files are checked when they are used or by `verify`."""
    page = folder / PAGE
    try:
        refuse_pipe(page)
        content = page.read_bytes()
        schema = msgspec.json.decode(content, type=_SchemaOnly).schema
        if schema > SCHEMA:
            raise UserError(
                f"{page} has schema {schema}, this version reads up to {SCHEMA}\n"
                "upgrade Facet: in its clone, git pull, then pip install ."
            )
        bundle = msgspec.json.decode(content, type=Bundle)
        if schema < 1:
            raise msgspec.ValidationError(f"schema {schema}")
    except OSError as err:
        raise UserError(f"cannot read {page}: {err.strerror}\n{rebuild(folder)}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise UserError(f"{page} is not a valid bundle page: {err}\n{rebuild(folder)}") from None
    if bundle.digest != _digest(bundle):
        raise UserError(f"{page} was changed after it was built: its digest differs\n{rebuild(folder)}")
    if bundle.slug != slug_of(bundle.slug):
        raise UserError(f"{page} has a slug that is no folder name: {bundle.slug!r}\n{rebuild(folder)}")
    if bundle.routes and not bundle.router:
        raise UserError(
            f"{page} routes by {bundle.routes.attribute!r}, which is no attribute of its\n{rebuild(folder)}"
        )
    for name in _files(bundle):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{page} names a file outside the bundle: {name!r}\n{rebuild(folder)}")
    if fault := _fault(bundle):
        raise UserError(f"{page}: {fault}\n{rebuild(folder)}")
    return bundle


def _fault(bundle: Bundle) -> str:
    """What of the page contradicts itself; empty where nothing does."""
    attributes = [attribute for category in bundle.categories for attribute in category.attributes]
    outputs = [attribute.output for attribute in attributes]
    if not outputs or len(set(outputs)) != len(outputs):
        return "its attributes must be there, each with an output of its own"
    golden = bundle.golden.photos or bundle.golden.probabilities  # none at all is told by whoever needs them
    if golden and set(bundle.golden.probabilities) != set(outputs):
        return "its golden answers are of other outputs than its attributes"
    for attribute in attributes if golden else ():
        rows = bundle.golden.probabilities[attribute.output]
        if [len(row) for row in rows] != [len(attribute.classes)] * len(bundle.golden.photos):
            return f"its golden answers for {attribute.name!r} are not one a photo and class"
    if unknown := {verdict.engine for one in bundle.artifacts for verdict in one.verdicts} - ENGINES.keys():
        return f"a verdict is of an engine that there is not: {min(unknown)!r}"
    if any("\0" in name for name in _files(bundle)):
        return "a file's name has a zero byte"
    names = [artifact.file for artifact in bundle.artifacts]
    if repeated := [name for name in names if names.count(name) > 1]:
        return f"it lists {repeated[0]} twice"
    for artifact in bundle.artifacts:
        if artifact.profile and artifact.file.endswith(".onnx"):
            return f"{artifact.file} has the batches of a plan, and is a graph"
        if stray := [one.engine for one in artifact.verdicts if not artifact.file.endswith(ENGINES[one.engine].suffix)]:
            return f"{artifact.file} has a verdict of {stray[0]}, which does not read such files"
    return ""


def checked_file(folder: Path, file: str, sha256: str) -> Path:
    """The path of one of the bundle's files, its content checked against the page."""
    path = folder / file
    try:
        seen = sha256_of(path)
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror}\n{rebuild(folder, file)}") from None
    if seen != sha256:
        raise UserError(
            f"{path} was changed after it was built: sha256 {seen[:12]}, expected {sha256[:12]}\n"
            f"{rebuild(folder, file)}"
        )
    if path.suffix == ".onnx" and _keeps_weights_elsewhere(path):
        raise UserError(
            f"{path} keeps weights in another file, which no hash of the page covers\n{rebuild(folder, file)}"
        )
    return path


def _keeps_weights_elsewhere(path: Path) -> bool:
    """Whether an ONNX file names another for some of its tensors: the key `location` of one, as protobuf writes it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found: int = content.find(b"\x0a\x08location\x12")
    return found >= 0


def verify(folder: Path) -> Bundle:
    """The bundle in `folder`, its page and every file it names checked."""
    bundle = load(folder)
    for file, sha256 in _files(bundle).items():
        checked_file(folder, file, sha256)
    return bundle


def save(folder: Path, bundle: Bundle) -> Bundle:
    """Write bundle.json in one step, then sweep artifacts that it no longer names; gives the page written."""
    written = msgspec.structs.replace(bundle, digest=_digest(bundle))
    page = msgspec.json.format(msgspec.json.encode(written), indent=1)
    replace_file(folder / PAGE, page + b"\n")
    for path in strays(folder, written):
        path.unlink()
    return written


def strays(folder: Path, bundle: Bundle) -> list[Path]:
    """Files named as a bundle's are that the page does not name: what an earlier one had, or a killed build left."""
    named = {folder / name for name in _files(bundle)}
    # The names that artifacts have, and no others: a checkpoint's weights are model.safetensors.
    artifacts = (path for precision in get_args(Precision) for path in folder.glob(f"model.{precision}.*"))
    # A set: an unfinished golden photo is found twice.
    found = {*artifacts, *folder.glob("validation.*.npz"), *folder.glob("golden/*"), *folder.rglob("*.part")} - named
    return [path for path in found if path.is_file()]


def rebuild(folder: Path, file: str = "", *, target: str = "") -> str:
    """What to type where the bundle's page, or that file of it, is not what was built, or does not serve here.

    A plan is made anew from its graph, where it will run; all else where the checkpoint is.

    Args:
        target: the kind of GPU to make a plan for, instead of the one that the file's name tells.
    """
    page = _whatever_is_left(folder)
    if not file.endswith(".plan"):
        if is_shipped(folder) and not (_EXAMPLES / "checkpoints" / folder.name).is_dir():
            where = shlex.quote(str(folder))
            return f"it came with facet-edge: get it back by installing that again, or with: git checkout -- {where}"
        lie_there = [one for one in get_args(Precision) if any(folder.glob(f"model.{one}.*")) or f".{one}." in file]
        precisions = f"--precision {' '.join(lie_there)} " if lie_there else ""
        slug = page.slug if page else folder.resolve().name
        # A bundle lies in the folder that is named after it: one that was renamed since is built beside.
        build = f"--category {shlex.quote(slug)} {precisions}--out {shlex.quote(str(folder.parent))}"
        return f"rebuild it with: python -m export.build {build}"
    # As plans are named: model.<precision>[.<target>].<digits of its sha256>.plan
    named = re.match(r"model\.(fp32|fp16|int8)\.(?:(sm\d+)\.)?", file)
    precision, target = (named[1], target or named[2]) if named else ("", target)
    profiles = [one.profile for one in page.artifacts if one.file == file and one.profile] if page else []
    flags = [f"--precision {precision}"] if precision else []
    flags += [f"--target {target}"] if target else []
    flags += [f"--batch {one.min_batch} {one.opt_batch} {one.max_batch}" for one in profiles if one != Profile()]
    command = " ".join(["python -m export.engine", shlex.quote(str(folder)), *flags, "--rebuild"])
    return f"rebuild it with: {command}"


def _whatever_is_left(folder: Path) -> Bundle | None:
    """The bundle's page, though it may have been changed: for what an error says alone."""
    try:
        refuse_pipe(folder / PAGE)
        return msgspec.json.decode((folder / PAGE).read_bytes(), type=Bundle)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def is_shipped(folder: Path) -> bool:
    """Whether the bundle there is one of those that come with Facet."""
    return folder.resolve().parent in {_EXAMPLES / "bundles", _HERE / "shipped"}


def _digest(bundle: Bundle) -> str:
    blank = msgspec.structs.replace(bundle, digest="")
    return hashlib.sha256(msgspec.json.encode(blank, order="deterministic")).hexdigest()


def _files(bundle: Bundle) -> dict[str, str]:
    def named() -> Iterator[tuple[str, str]]:
        for artifact in bundle.artifacts:
            yield artifact.file, artifact.sha256
        for photo in bundle.golden.photos:
            yield photo.file, photo.sha256
        if bundle.validation:
            yield bundle.validation.file, bundle.validation.sha256

    return dict(named())
