"""Fuzz the reading of bundle.json: any bytes become a bundle or a UserError.

    python -m tests.fuzz.fuzz_bundle build/fuzz/bundles build/fuzz/pages -max_total_time=600

As `fuzz_images`; pages to begin with are those of examples/bundles, one a file.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["runtime", "msgspec"]):
    from runtime import bundle
    from runtime.errors import UserError
    from runtime.predictor import choose

FOLDER = tempfile.TemporaryDirectory()
PAGE = Path(FOLDER.name) / bundle.PAGE


def one(content: bytes) -> None:
    PAGE.write_bytes(content)
    with suppress(UserError):
        page = bundle.load(PAGE.parent)
        choose(page, engine="auto", precision=None, folder=PAGE.parent)


def unsigned(page: bundle.Bundle) -> str:
    """Every digest fits: a fuzzer would never find one, and so never come behind it."""
    return page.digest


if __name__ == "__main__":
    bundle._digest = unsigned
    atheris.Setup([sys.argv[0], "-rss_limit_mb=1500", "-timeout=10", *sys.argv[1:]], one)
    atheris.Fuzz()
