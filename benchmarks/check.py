"""Command: whether a commit made predict slower than another, on this machine, beyond what chance explains.

python -m benchmarks.check HEAD~1

Three processes take turns with the same photos through the example bundles: one of the earlier commit, another of the
same one, and one of the later. What sets the two equal ones apart is what this machine's noise can do; the later one
fails where it is slower by more than that, and than is worth a word, with 99 % certainty (bootstrap over rounds).
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import busy, record
from benchmarks.cache import ROOT
from benchmarks.turns import linked
from runtime import inputs
from runtime.errors import DONE, PARTLY_DONE, UserError
from runtime.terminal import note, positive, progress

ROUNDS, PHOTOS = 40, 120
# Of fewer the draws know nothing: with one, whatever came out is certain.
FEWEST = 10
# Of the time: less is not worth a failure.
LEAST = 0.02
CERTAINTY = 0.99
DRAWS = 2000
# What runs in each commit's own folder, by what every commit has: the command itself.
TURN = """
import os, sys, time
from runtime.predict import main
folder, out = sys.argv[1:]
for line in sys.stdin:
    started = time.perf_counter()
    code = main([folder, "--engine", "onnxruntime", "--out", out, "--quiet"])
    assert code == 0, code
    print(time.perf_counter() - started, flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Seconds of each turn, round by round, of the earlier commit, of the same once more, and of the later."""

    before_s: list[float]
    again_s: list[float]
    after_s: list[float]

    @property
    def slower(self) -> list[float]:
        """By how much of its time the later is slower, round by round: 0.1 is a tenth."""
        pairs = zip(self.before_s, self.again_s, self.after_s, strict=True)
        return [after / math.sqrt(before * again) - 1 for before, again, after in pairs]

    @property
    def noise(self) -> list[float]:
        """The same of two that are equal."""
        return [again / before - 1 for before, again in zip(self.before_s, self.again_s, strict=True)]

    def verdict(self) -> dict[str, float | bool]:
        """How much slower, what that is at least, and what noise alone may come to."""
        slower = drawn(self.slower)
        noise = sorted(abs(middle) for middle in drawn(self.noise))
        at_least = slower[int((1 - CERTAINTY) * DRAWS)]
        explained = max(LEAST, noise[int(CERTAINTY * DRAWS)])
        return {
            "slower": round(statistics.median(slower), 4),
            "at_least": round(at_least, 4),
            "explained_by_noise": round(explained, 4),
            "failed": at_least > explained,
        }


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.check", description="Fail where a commit made predict slower than an earlier one."
    )
    parser.add_argument("before", metavar="COMMIT", help="the earlier one, such as HEAD~1")
    parser.add_argument("after", nargs="?", metavar="COMMIT", help="the later one (default: the folder as it is)")
    parser.add_argument(
        "--rounds", type=_rounds, default=ROUNDS, metavar="N", help=f"{FEWEST} or more, default: %(default)s"
    )
    record.add_out(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return record.run(lambda: check(args), into=args.out)


def check(args: argparse.Namespace) -> int:
    """Compare the two, keep what was found, and fail where the later is slower."""
    load_before = busy.before()
    commits = {"before": commit_of(args.before), "after": commit_of(args.after or "HEAD")}
    changed = not args.after and bool(git("status", "--porcelain"))
    if busy.is_busy(load_before):
        note(f"others have {load_before:.1f} cores: what is slower now may not be when the machine is quiet")
    git("worktree", "prune")  # of what was killed
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as held:
        before = checked_out(commits["before"], Path(scratch, "before"), held)
        after = checked_out(commits["after"], Path(scratch, "after"), held) if args.after else ROOT
        found = compare(before, after, rounds=args.rounds)
    verdict = found.verdict()
    head = {
        "model": "check",
        "before": args.before,
        "after": args.after or "the folder as it is",
        "commits": commits,
        "changed": changed,
        **verdict,
    }
    body = {"before_s": found.before_s, "again_s": found.again_s, "after_s": found.after_s}
    path = record.keep(head, body, full=True, load_before=load_before, into=args.out)
    note(
        f"{verdict['slower']:+.1%} of the time, at least {verdict['at_least']:+.1%}; noise explains "
        f"{verdict['explained_by_noise']:.1%}: {'slower' if verdict['failed'] else 'no slower'}\nkept in {path}"
    )
    return PARTLY_DONE if verdict["failed"] else DONE


def commit_of(name: str) -> str:
    """Its hash, whatever it is called by; UserError where there is none."""
    try:
        return git("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
    except UserError as err:
        raise UserError(f"git has no commit {name!r}: {err}\nname one of: git log --oneline") from None


def checked_out(commit: str, folder: Path, held: ExitStack) -> Path:
    """A worktree of the commit, removed at the end."""
    git("worktree", "add", "--detach", "--force", str(folder), commit)
    held.callback(git, "worktree", "remove", "--force", str(folder))
    return folder


def git(*words: str) -> str:
    """What it says of this repository; UserError with what it says against it."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(done.stderr.strip())
    return done.stdout.strip()


def compare(before: Path, after: Path, *, rounds: int = ROUNDS, photos: int = PHOTOS) -> Comparison:
    """Turns of the code in two folders, in turns, another first in each round."""
    seconds: list[list[float]] = [[], [], []]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as held:
        found = inputs.find([ROOT / "examples" / "photos"])
        folder = linked(Path(scratch, "photos"), found, 0, photos)
        # What anyone tuned is nobody's here.
        environment = {**os.environ, "XDG_CACHE_HOME": scratch}
        processes = [
            held.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", TURN, str(folder), str(Path(scratch, f"{index}.csv"))],
                    cwd=code,
                    env={**environment, "PYTHONPATH": str(code)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for index, code in enumerate((before, before, after))
        ]
        with progress("rounds", rounds) as advance:
            for number in range(-1, rounds):  # the first loads what is only loaded once
                for step in range(3):
                    index = (number + step) % 3
                    taken = _turn(processes[index])
                    if number >= 0:
                        seconds[index].append(taken)
                advance(number >= 0)
        for process in processes:
            process.communicate()
    return Comparison(before_s=seconds[0], again_s=seconds[1], after_s=seconds[2])


def _turn(process: subprocess.Popen[str]) -> float:
    assert process.stdin and process.stdout
    time.sleep(0.05)
    process.stdin.write("\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise UserError(f"one of the commits cannot predict: it ended with {process.wait()}, as above")
    return float(line)


def _rounds(text: str) -> int:
    number = positive(text)
    if number < FEWEST:
        raise argparse.ArgumentTypeError(f"must be {FEWEST} or more to tell anything, got {number}")
    return number


def drawn(values: Sequence[float]) -> list[float]:
    """The mean of the middle half of as many draws from the values, with replacement, sorted: less moved by a turn in
    which the machine was elsewhere than a mean, and less by chance than a median."""
    import numpy as np

    rng = np.random.default_rng(0)
    sorted_DN = np.sort(rng.choice(np.asarray(values), (DRAWS, len(values))), axis=1)
    cut = len(values) // 4
    return sorted(sorted_DN[:, cut : len(values) - cut].mean(axis=1).tolist())


if __name__ == "__main__":
    raise SystemExit(main())
