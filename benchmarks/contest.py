"""What the ways to answer one model's photos reached in turns: as lines to read, and as what is kept."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import busy, record, rounds
from benchmarks.record import RESULTS, rounded

KINDS = ("alone", "whole")
# Of a probability, in float32: orders of addition move the sixth digit, what is computed otherwise the third.
FLOAT32 = 1e-3
# Of labels, in less than float32: below it nobody would take one for the other, however fast it is.
LABELS = 0.9


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How near two ways of answering the same photos are."""

    largest_difference: float
    """Of any class probability of any photo."""
    mean_difference: float
    labels_agree: float
    """Share of the labels, 0-1."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one way reached, in turns with the others."""

    way: str
    what: str
    """Engine and precision."""
    how: str
    """How it was given the photos of this contest."""
    exact: bool
    """Whether it computes in float32."""
    photos: int
    """Of a turn."""
    images_per_s: tuple[float, ...]
    """Of each round."""
    answers: Agreement
    """Beside PyTorch's in float32, on the same pixels."""
    labels_agree: float | None
    """Share of the labels of its table that are the reference's, where it made one."""

    @property
    def answers_alike(self) -> bool:
        """Whether it does the same work: else how fast it does another says nothing."""
        if self.exact:
            return self.answers.largest_difference <= FLOAT32
        return self.answers.labels_agree >= LABELS


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The ways to answer one model's photos, ours first."""

    model: str
    kind: str
    """`alone`, the network by itself, or `whole`, from folder to table."""
    results: Sequence[Result]
    missing: Mapping[str, str]
    """The ways that had no part in it, and why."""
    failed: Mapping[str, str]
    """Those that were to have one and ended, and with which words."""
    gop: float
    """10^9 operations for a photo, a multiplication and an addition counting two."""
    limits: Sequence[Mapping[str, float]]
    """The machine's own rates, by their name, measured in each round; empty where nothing here can measure them."""
    others: Sequence[float | None]
    """The share of the cores' time that others had in each round; None where that is not known."""

    def ratios(self, other: Result) -> list[float]:
        """Round by round, how many times as fast as the other way ours is."""
        return [ours / theirs for ours, theirs in zip(self.results[0].images_per_s, other.images_per_s, strict=True)]

    def shares(self) -> dict[str, float]:
        """Of the rate that the machine has for large products of each precision, what ours reaches: its median."""
        if not self.limits:
            return {}
        rates = self.results[0].images_per_s
        return {
            name: statistics.median(
                rate * self.gop / limit[f"{name}_gops"] for rate, limit in zip(rates, self.limits, strict=True)
            )
            for name in ("f32", "bf16", "int8")
        }

    @property
    def busy(self) -> float:
        """The largest share of a round that others had."""
        return max((share for share in self.others if share is not None), default=0.0)

    def lines(self) -> list[str]:
        """A line a way: its rate and how many times as fast ours is, the median of each and, in brackets, its range."""
        told = []
        for result in self.results:
            beside = "" if result is self.results[0] else f": ours {_ranged(self.ratios(result))} times as fast"
            if not result.answers_alike:
                beside = ": not compared, it answers otherwise"
            near = f"{result.answers.mean_difference:.1e} off, {result.answers.labels_agree:.1%} of labels agree"
            called = f"{result.way} ({result.what}, {result.how})"
            told.append(f"{called}, {_ranged(result.images_per_s)} images/s{beside}; {near}")
        if found := self.shares():
            shares = ", ".join(f"{share:.0%} of {name}" for name, share in found.items())
            told.append(f"of the machine's rate for large products, ours reaches {shares}")
        if self.busy > rounds.SHARE:
            told.append(f"others had up to {self.busy:.0%} of the cores in a round: run it again on a quiet machine")
        told += [f"{way}: {why}" for way, why in self.missing.items()]
        return told + [f"{way} failed: {why}" for way, why in self.failed.items()]

    def summary(self) -> dict[str, object]:
        """What is kept of it: the medians, then everything they were taken from."""
        ways = []
        for result in self.results:
            ratios = self.ratios(result) if result.answers_alike else []
            ways.append(
                {
                    "way": result.way,
                    "what": result.what,
                    "how": result.how,
                    "photos": result.photos,
                    "images_per_s": rounded(statistics.median(result.images_per_s)),
                    "ours_is_times_as_fast": rounded(statistics.median(ratios)) if ratios else None,
                    "range": rounded((min(ratios), max(ratios))) if ratios else None,
                    "answers": rounded(asdict(result.answers)),
                    "labels_agree": rounded(result.labels_agree),
                    "rounds": rounded(result.images_per_s),
                }
            )
        return {
            "gop": rounded(self.gop),
            "share_of_limit": rounded(self.shares()),
            "limits": [rounded(dict(limit)) for limit in self.limits],
            "others_share": rounded(tuple(self.others)),
            "ways": ways,
            "missing": dict(self.missing),
        }


def save(contests: Sequence[Contest], *, full: bool, load_before: float, into: Path = RESULTS) -> str:
    """Write one model's file, or leave the one that says more; a line on what became of it.

    Args:
        load_before: how many cores others had before the session, by `busy.before`.
    """
    model, ours = contests[0].model, contests[0].results[0]
    path = record.path_of(model, into)
    quiet = not busy.is_busy(load_before) and all(contest.busy <= rounds.SHARE for contest in contests)
    if lacks := _lacks(contests):
        return f"{model}: not kept, since {lacks}"
    if better := _better(path, full=full, quiet=quiet):
        return f"{model}: not kept, since {path} is of {better}"
    head = {"model": model, "what": ours.what, "quiet": quiet}
    body = {"contests": {contest.kind: contest.summary() for contest in contests}}
    return f"kept in {record.keep(head, body, full=full, load_before=load_before, into=into)}"


def _lacks(contests: Sequence[Contest]) -> str:
    """What a file of these would not have; empty where it would be whole."""
    kinds = {contest.kind for contest in contests}
    if absent := [kind for kind in KINDS if kind not in kinds]:
        return f"the contest {absent[0]!r} was not held"
    failed = {way for contest in contests for way in contest.failed}
    return f"{', '.join(sorted(failed))} failed" if failed else ""


def _better(path: Path, *, full: bool, quiet: bool) -> str:
    """What today's file is of that these figures are not; empty where they may take its place."""
    try:
        there = json.loads(path.read_text())
    except (OSError, ValueError):  # none, or half of one
        return ""
    if there.get("full") and not full:
        return "a run with --full"
    return "a quiet machine" if there.get("quiet") and not quiet else ""


def _ranged(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
