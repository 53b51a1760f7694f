"""Photo in, attributes out: the part of Facet that lives on the edge box, without torch.

from runtime import Predictor

with Predictor.open("bundles/dress") as predictor:
    predictor(["photo.jpg"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.errors import UserError
    from runtime.headers import PhotoError
    from runtime.predictor import Answer, Predictor

__version__ = "0.1.0"
__all__ = ["Answer", "PhotoError", "Predictor", "UserError", "__version__"]

_HOMES = {"Answer": "predictor", "PhotoError": "headers", "Predictor": "predictor", "UserError": "errors"}


def __getattr__(name: str) -> object:
    """What is asked for is imported then: a command that needs none of it starts at once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
