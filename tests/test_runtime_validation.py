"""What a bundle keeps of its validation photos comes back as it was, or is refused."""

# N photos, L attributes, K classes, F features

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from runtime import bundle, files, validation
from runtime.bundle import ValidationFile
from runtime.errors import UserError
from tests.audit_parts import with_validation

TRUTH = {"red": {"colour": "red", "warmth": "warm"}, "blue": {"colour": "blue", "warmth": "cold"}}
RNG = np.random.default_rng(0)
LABELS_NL = np.array([[0, -1], [2, 1], [1, 0]])
PROBABILITIES = {"colour": RNG.random((3, 3)).astype(np.float32), "warmth": RNG.random((3, 2)).astype(np.float32)}
FEATURES_NF, KINDS_N = RNG.random((2, 5)).astype(np.float16), np.zeros(2)


def keeping(folder: Path, content: bytes, into: Path) -> Path:
    """A copy of the bundle that keeps this."""
    copy = with_validation(folder, into, TRUTH, labels=2)
    sha256 = hashlib.sha256(content).hexdigest()
    files.replace_file(copy / "validation.new.npz", content)
    kept = ValidationFile(file="validation.new.npz", sha256=sha256, photos=3, answered_by="itself")
    bundle.save(copy, msgspec.structs.replace(bundle.load(copy), validation=kept))
    return copy


def test_labels_and_answers_come_back_by_output(bundle_folder: Path, tmp_path: Path) -> None:
    content = validation.packed(LABELS_NL, PROBABILITIES, FEATURES_NF, KINDS_N)
    assert content == validation.packed(LABELS_NL, PROBABILITIES, FEATURES_NF, KINDS_N)
    folder = keeping(bundle_folder, content, tmp_path)
    found = validation.read(folder, bundle.verify(folder))
    assert found is not None
    assert found.answers["colour"].labels_N.tolist() == [0, 2, 1]
    assert np.array_equal(found.answers["colour"].probabilities_NK, PROBABILITIES["colour"])
    assert found.answers["warmth"].labels_N.tolist() == [1, 0]
    assert np.array_equal(found.answers["warmth"].probabilities_NK, PROBABILITIES["warmth"][1:])
    assert np.array_equal(found.features_NF, FEATURES_NF) and found.kinds_N.tolist() == [0, 0]
    # What was kept before is swept.
    assert [path.name for path in folder.glob("validation.*")] == ["validation.new.npz"]


def test_a_bundle_of_before_there_was_any_keeps_nothing_and_is_whole(bundle_folder: Path) -> None:
    page = bundle.verify(bundle_folder)
    assert b"validation" not in (bundle_folder / bundle.PAGE).read_bytes()
    assert validation.read(bundle_folder, page) is None


def test_a_byte_that_was_changed_is_found(bundle_folder: Path, tmp_path: Path) -> None:
    folder = with_validation(bundle_folder, tmp_path, TRUTH, labels=2)
    page = bundle.load(folder)
    (path,) = folder.glob("validation.*.npz")
    path.write_bytes(path.read_bytes() + b"!")
    for look in (lambda: validation.read(folder, page), lambda: bundle.verify(folder)):
        with pytest.raises(UserError, match=r"validation\.\w+\.npz was changed after it was built"):
            look()


class Evil:
    """Whoever unpickles it runs what it says."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("pwned"),))


@pytest.mark.parametrize(
    "change",
    [
        {"labels_NL": LABELS_NL[:, :1]},
        {"labels_NL": LABELS_NL[:2]},
        {"labels_NL": LABELS_NL + 1},
        {"labels_NL": LABELS_NL - 1},
        {"probabilities": {"colour": PROBABILITIES["colour"]}},
        {"probabilities": {"colour": PROBABILITIES["colour"] * np.nan, "warmth": PROBABILITIES["warmth"]}},
        {"probabilities": {name: own_NK - 1 for name, own_NK in PROBABILITIES.items()}},
        {"probabilities": {name: own_NK + 1 for name, own_NK in PROBABILITIES.items()}},
        {"kinds_N": np.zeros(3)},
    ],
)
def test_what_is_of_other_attributes_is_refused(change: dict[str, Any], bundle_folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "labels_NL": LABELS_NL, "probabilities": PROBABILITIES, "features_NF": FEATURES_NF, "kinds_N": KINDS_N,
    }  # fmt: skip
    folder = keeping(bundle_folder, validation.packed(**(given | change)), tmp_path)
    with pytest.raises(UserError, match=r"is of other attributes than the bundle's page\n"):
        validation.read(folder, bundle.load(folder))


def test_what_is_no_such_file_is_refused_and_nothing_in_it_is_run(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "evil.npz", labels=np.array([Evil()], object), probabilities=0, features=0, kinds=0)
    arrays: dict[str, Any] = {"labels": LABELS_NL, "features": FEATURES_NF, "kinds": KINDS_N}
    np.savez(tmp_path / "complex.npz", probabilities=np.zeros((3, 5), complex), **arrays)
    np.savez(tmp_path / "none.npz", labels=LABELS_NL)
    np.savez(tmp_path / "whole.npz", probabilities=np.zeros((3, 5)), **arrays)
    whole = (tmp_path / "whole.npz").read_bytes()
    # In each of the four places: a way to pack that nobody has, and encrypted.
    packed = whole.replace(b"PK\x03\x04\x2d\0\0\0\0\0", b"PK\x03\x04\x2d\0\0\0\x63\0")
    packed = packed.replace(b"\x2d\x03\x2d\0\0\0\0\0", b"\x2d\x03\x2d\0\0\0\x63\0")
    encrypted = whole.replace(b"\x2d\x03\x2d\0\0\0\0\0", b"\x2d\x03\x2d\0\1\0\0\0")
    vast = whole.replace(b"'shape': (3, 5), }            ", b"'shape': (30000000000000, 5), }")
    assert len({packed, encrypted, vast, whole}) == 4
    made = [(tmp_path / f"{name}.npz").read_bytes() for name in ("evil", "complex", "none")]
    for number, content in enumerate([b"no archive", b"", *made, packed, encrypted, vast]):
        folder = keeping(bundle_folder, content, tmp_path / str(number))
        with pytest.raises(UserError, match=r"is not what a bundle keeps of validation photos"):
            validation.read(folder, bundle.load(folder))
    assert not (tmp_path / "pwned").exists()
