"""The two phases: everything end to end, then the heads alone, each attribute keeping its own best epoch."""

# B batch, N rows, K classes, L attributes

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from runtime.bundle import Preprocess
from runtime.errors import UserError
from train import batchnorm, data, metrics
from train.config import PhaseConfig, Preset
from train.data import Table
from train.losses import masked_cross_entropy, mmd
from train.metrics import Score
from train.network import FacetModel, normalise
from train.photos import Batch, Item, Photos, batches, in_order

# Photos from which BatchNorm takes its statistics, and those validated at once.
BATCHNORM_PHOTOS = 320
VALIDATION_BATCH = 32


@dataclass(kw_only=True)
class Run:
    """One category's training: what does not change between the phases."""

    model: FacetModel
    table: Table
    spec: Preprocess
    preset: Preset
    seed: int
    max_steps: int | None
    device: torch.device
    advance: Callable[[float], None]
    """Called with 1 after each step."""
    unreadable: set[Path] = field(default_factory=set)

    def epochs(self, phase: PhaseConfig) -> int:
        """How often the training rows are gone through."""
        return math.ceil(self.steps(phase) / self._steps_per_epoch(phase))

    def steps(self, phase: PhaseConfig) -> int:
        """How many optimiser steps that makes."""
        epochs = max(phase.epochs, math.ceil(phase.min_steps / self._steps_per_epoch(phase)))
        steps = epochs * self._steps_per_epoch(phase)
        return min(steps, self.max_steps or steps)

    def _steps_per_epoch(self, phase: PhaseConfig) -> int:
        return math.ceil(len(self.table.rows("train")) / phase.batch)

    def training_batches(self, phase: PhaseConfig, epoch: int) -> Iterator[Batch]:
        """One epoch: shuffled training photos, with the phase's share of unlabelled validation photos."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.table.rows("train"))
        targets = self.table.rows("val")
        groups = []
        for start in range(0, len(order), phase.batch):
            group = [Item(int(row), epoch) for row in order[start : start + phase.batch]]
            drawn = rng.choice(targets, min(phase.target_batch, len(targets)), replace=False)
            groups.append(group + [Item(int(row), epoch, target=True) for row in drawn])
        left = self.steps(phase) - epoch * self._steps_per_epoch(phase)
        photos = Photos(self.table, self.spec, self.preset.augment, self.seed)
        yield from self._readable(batches(photos, groups[:left], total=len(order)))

    def plain_batches(self, rows: np.ndarray) -> Iterator[Batch]:
        """Batches of unchanged photos, in the order of the rows."""
        photos = Photos(self.table, self.spec, None, self.seed)
        yield from self._readable(batches(photos, in_order(rows, VALIDATION_BATCH), total=len(rows)))

    def inputs(self, batch: Batch) -> Tensor:
        """The network's input for a batch, on its device, [B, 3, H, W]."""
        return normalise(batch.images_BHWC.to(self.device, non_blocking=True), self.preset.model)

    def _readable(self, found: Iterator[Batch]) -> Iterator[Batch]:
        for batch in found:
            self.unreadable.update(batch.unreadable)
            data.refuse_unreadable(sorted(self.unreadable), len(self.table.paths))
            if len(batch.images_BHWC):
                yield batch


def phase1(run: Run) -> list[Score]:
    """Train everything end to end; the model is left with its best epoch's weights, whose scores are given back."""
    phase = run.preset.phase1
    rows = np.random.default_rng(run.seed).permutation(run.table.rows("train"))[:BATCHNORM_PHOTOS]
    batchnorm.recentre(run.model.backbone, (run.inputs(batch) for batch in run.plain_batches(rows)))
    averaged = copy.deepcopy(run.model).eval()
    keeper = _Best(averaged if phase.ema_decay else run.model)
    heads = [*run.model.neck.parameters(), *run.model.heads.parameters()]
    optimiser = _optimiser(phase, {phase.backbone_lr: list(run.model.backbone.parameters())}, heads)
    schedule = _Schedule(optimiser, phase, run.steps(phase))
    for epoch in range(run.epochs(phase)):
        run.model.train()
        batchnorm.freeze(run.model)
        for batch in run.training_batches(phase, epoch):
            output = run.model(run.inputs(batch))
            labels_BL = batch.labels_BL.to(run.device)
            loss = masked_cross_entropy(output.logits, labels_BL, smoothing=phase.label_smoothing)
            is_target = batch.is_target_B.to(run.device)
            if phase.mmd_weight and is_target.sum() > 1 and (~is_target).sum() > 1:
                loss = loss + phase.mmd_weight * mmd(output.features[~is_target], output.features[is_target])
            _step(loss, optimiser, heads + list(run.model.backbone.parameters()), phase.clip_norm)
            schedule.step()
            if phase.ema_decay:
                _average(averaged, run.model, schedule.taken, phase.ema_decay)
            run.advance(1)
        found = evaluate(run, keeper.model)
        keeper.see(found)
        schedule.epoch_ended(sum(score.loss for score in found))
    run.model.load_state_dict(keeper.state)
    return keeper.scores


def phase2(run: Run) -> list[Score]:
    """Train the heads on the frozen backbone; each is left with the best of its own epochs, the start included."""
    phase = run.preset.phase2
    heads = run.model.heads
    names = [attribute.name for attribute in run.table.attributes]

    def copies() -> dict[str, tuple[Score, list[Tensor]]]:
        return {
            score.attribute: (score, [row.clone() for row in heads.rows_of(names.index(score.attribute))])
            for score in evaluate(run, run.model)
        }

    best = copies()
    parameters = list(heads.parameters())
    optimiser = _optimiser(phase, {}, parameters)
    schedule = _Schedule(optimiser, phase, run.steps(phase))
    run.model.eval()
    for epoch in range(run.epochs(phase)):
        heads.train()
        for batch in run.training_batches(phase, epoch):
            with torch.no_grad():
                map_BCHW = run.model.map(run.inputs(batch))
            loss = masked_cross_entropy(
                heads(map_BCHW), batch.labels_BL.to(run.device), smoothing=phase.label_smoothing
            )
            _step(loss, optimiser, parameters, phase.clip_norm)
            schedule.step()
            run.advance(1)
        now = copies()
        schedule.epoch_ended(sum(score.loss for score, _ in now.values()))
        best |= {name: kept for name, kept in now.items() if kept[0].hm > best[name][0].hm}
    for name, (_, kept) in best.items():
        for parameter, value in zip(heads.rows_of(names.index(name)), kept, strict=True):
            parameter.copy_(value)
    return [score for score, _ in best.values()]


def evaluate(run: Run, model: FacetModel) -> list[Score]:
    """The model's scores on the validation photos."""
    rows = run.table.rows("val")
    model.eval()
    answers, labels = [], []
    with torch.inference_mode():
        for batch in run.plain_batches(rows):
            logits = model(run.inputs(batch)).logits
            answers.append([logits_BK.float().softmax(1).cpu().numpy() for logits_BK in logits])
            labels.append(batch.labels_BL.numpy())
    probabilities = [np.concatenate(parts) for parts in zip(*answers, strict=True)]
    return metrics.scores(run.table.categories, probabilities, np.concatenate(labels), run.table.commonest())


class _Best:
    """Keeps the state of the best epoch of a model that goes on changing."""

    def __init__(self, model: FacetModel) -> None:
        self.model = model
        self.state = copy.deepcopy(model.state_dict())
        self.scores: list[Score] = []

    def see(self, scores: list[Score]) -> None:
        if not self.scores or metrics.mean_hm(scores) > metrics.mean_hm(self.scores):
            self.scores, self.state = scores, copy.deepcopy(self.model.state_dict())


class _Schedule:
    """The learning rate over a phase: warm-up and cosine by the step, or plateau by the epoch."""

    def __init__(self, optimiser: torch.optim.Optimizer, phase: PhaseConfig, steps: int) -> None:
        self.taken = 0
        self._plateau = None
        self._cosine = None
        if phase.schedule == "plateau":
            self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, patience=1)
        else:
            warmup = max(1, round(phase.warmup * steps))

            def share(step: int) -> float:
                climb = min(1.0, (step + 1) / warmup)
                return climb * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / steps)))

            self._cosine = torch.optim.lr_scheduler.LambdaLR(optimiser, share)

    def step(self) -> None:
        self.taken += 1
        if self._cosine:
            self._cosine.step()

    def epoch_ended(self, loss: float) -> None:
        if self._plateau:
            self._plateau.step(loss)


def _optimiser(
    phase: PhaseConfig, backbone: dict[float, list[nn.Parameter]], heads: list[nn.Parameter]
) -> torch.optim.Optimizer:
    def groups(rate: float, parameters: list[nn.Parameter]) -> list[dict[str, object]]:
        # Biases and normalisation scales are not shrunk: their size carries no complexity.
        return [
            {"params": [p for p in parameters if p.ndim > 1], "lr": rate, "weight_decay": phase.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
        ]

    every = groups(phase.heads_lr, heads)
    for rate, parameters in backbone.items():
        every += groups(rate, parameters)
    return torch.optim.AdamW([group for group in every if group["params"]])


def _step(loss: Tensor, optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter], clip_norm: float) -> None:
    if not torch.isfinite(loss):
        raise UserError(f"the loss became {loss.item()}: the last checkpoint written is kept\ntry a smaller rate")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, clip_norm)
    optimiser.step()


@torch.no_grad()
def _average(averaged: FacetModel, model: FacetModel, taken: int, decay: float) -> None:
    # Early on the average would be mostly the start: a shorter memory first.
    decay = min(decay, taken / (taken + 20))
    for kept, value in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(value, 1 - decay)
        else:
            kept.copy_(value)
