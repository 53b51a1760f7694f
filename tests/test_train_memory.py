"""Freed memory is used again."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# In a process of its own: what is told to the allocator cannot be taken back.
SCRIPT = """
import resource

import timm
import torch

from train import memory

torch.set_num_threads(1)
network = timm.create_model("mobilenetv2_100", num_classes=0).eval()
photos_BCHW = torch.zeros(16, 3, 224, 224)


def faults():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        with torch.inference_mode():
            network.forward_features(photos_BCHW)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


print(faults())
memory.keep_freed()
print(faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the allocator is not glibc's")
def test_a_forward_pass_has_its_pages_from_the_one_before() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    # 200,000 pages of 4 KB here, and then next to none.
    assert kept < given_back / 4, (given_back, kept)
