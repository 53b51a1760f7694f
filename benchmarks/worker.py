"""Command: one way over one work in a process of its own, which does what it is asked on its stdin, a line each.

python -m benchmarks.worker WORK WAY

A way's memory, its threads and what it does to the process are its own; between its turns it waits. A request is a JSON
list of words, an answer a JSON object: first what it is, then what each request found. `benchmarks.turns` starts it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.ways import KINDS, Way, open_way
from benchmarks.works import WORKS, Work

# A fast network answers its photos in a blink, and a blink says little.
ALONE_S = 0.4


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker", description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=[*WORKS])
    parser.add_argument("way", choices=[*KINDS])
    args = parser.parse_args(argv)
    # What libraries print is not an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for found in replies(args.way, WORKS[args.work]()):
        print(json.dumps(found), file=answers, flush=True)
    return 0


def replies(name: str, work: Work) -> Iterator[dict[str, object]]:
    """What the way is, or why it is not here; then what each request on stdin found."""
    try:
        way = open_way(name, work)
    except LookupError as err:
        yield {"missing": str(err)}
        return
    yield {"what": way.what}
    for line in sys.stdin:
        yield done(way, work, json.loads(line))


def done(way: Way, work: Work, words: Sequence[str]) -> dict[str, object]:
    """`how`, `answers FILE N`, `alone N` or `whole FOLDER FILE`."""
    if words[0] == "how":
        return {"step": way.step, "how": dict(way.how)}
    if words[0] == "answers":
        import numpy as np

        np.savez(words[1], **way.answers(work.pixels(int(words[2]))))
        return {}
    if words[0] == "alone":
        photos_NHWC, rates = work.pixels(int(words[1])), []
        started = time.perf_counter()
        while not rates or time.perf_counter() - started < ALONE_S:
            rates.append(way.alone(photos_NHWC))
        return {"images_per_s": statistics.median(rates)}
    assert words[0] == "whole"
    folder, out = map(Path, words[1:])
    started = time.perf_counter()
    way.whole(folder, out)
    return {"images_per_s": len(list(folder.iterdir())) / (time.perf_counter() - started)}


if __name__ == "__main__":
    raise SystemExit(main())
