"""What a phase minimises: cross-entropy on the labels that are known, and the distance between the two domains."""

# B batch, F features, K classes, L attributes

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from train import processes
from train.config import MISSING, PhaseConfig
from train.losses import balanced_weights, log_prior, masked_cross_entropy, mmd
from train.network import Output
from train.photos import Batch, blank
from train.run import Run


class Objective:
    """The loss of a batch, which may be one of a step's several passes and one of several processes' shares."""

    def __init__(self, run: Run, phase: PhaseConfig) -> None:
        self._run = run
        self._phase = phase
        counts = [counts_K.to(run.device) for counts_K in run.class_counts(phase)]
        self._weights = [balanced_weights(counts_K) for counts_K in counts] if phase.balance == "weights" else None
        self._log_priors = [log_prior(counts_K) for counts_K in counts] if phase.balance == "logits" else None

    def counts(self, batches: Sequence[Batch]) -> Tensor:
        """What the sum over an attribute's labels is divided by, float [L]: their number in the whole step.

        With several processes their number for each, since gradients are averaged over the processes.
        """
        labels = [batch.labels_BL for batch in batches if len(batch.images_BHWC)]
        mine_L = sum((labels_BL != MISSING).sum(0) for labels_BL in labels)
        width = len(self._run.table.attributes)
        return processes.total((torch.zeros(width) + mine_L).to(self._run.device)) / processes.world()

    def __call__(
        self, network: Callable[[Tensor], Output], batch: Batch, counts_L: Tensor, *, passes: int
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss, whose gradients add up over the passes to the whole step's, and the parts it is told by."""
        run, phase = self._run, self._phase
        if not len(batch.images_BHWC):
            batch = blank(run.spec, len(run.table.attributes))
        with run.autocast():
            output = network(run.inputs(batch))
        loss = masked_cross_entropy(
            output.logits,
            batch.labels_BL.to(run.device),
            smoothing=phase.label_smoothing,
            weights=self._weights,
            log_priors=self._log_priors,
            counts_L=counts_L,
        )
        parts = {"loss": loss.item() * passes}
        if phase.mmd_weight:
            is_target_B = batch.is_target_B.to(run.device)
            is_source_B = (batch.labels_BL != MISSING).any(1).to(run.device) & ~is_target_B
            source_BF, target_BF = (processes.gathered(output.features[which]) for which in (is_source_B, is_target_B))
            if min(len(source_BF), len(target_BF)) > 1:
                distance = mmd(source_BF, target_BF)
                loss = loss + phase.mmd_weight * distance / passes
                parts["mmd"] = distance.item()
        return loss, parts


class Means:
    """Means of what is added, by name."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, parts: Mapping[str, float]) -> None:
        """One more value of each."""
        for name, value in parts.items():
            self._values.setdefault(name, []).append(value)

    def of(self, name: str) -> float:
        """The mean so far, over what every process added; 0.0 where nothing was."""
        values = [value for share in processes.everyone(self._values.get(name, [])) for value in share]
        return sum(values) / len(values) if values else 0.0
