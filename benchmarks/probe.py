"""Logistic regression on the features of a frozen backbone: what a recipe must beat to be worth its training."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from train.config import Preset
    from train.table import Table

# Inverse strengths of the penalty, chosen on validation.
PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)


class Probed(NamedTuple):
    """One attribute's answers on the test rows."""

    validation_hm: float
    truth_N: np.ndarray
    answers_N: np.ndarray


def probe(table: Table, preset: Preset) -> list[Probed]:
    """For each attribute a regression on the pooled features of the preset's backbone, of unchanged photos."""
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression

    from runtime.bundle import Preprocess
    from train import metrics, network
    from train.config import MISSING
    from train.run import Run

    config = preset.model
    model = network.create(config, [len(attribute.classes) for attribute in table.attributes], preset.weights).eval()
    run = Run(
        model=model,
        table=table,
        spec=Preprocess(height=config.size, width=config.size, mean=config.mean, std=config.std),
        preset=preset,
        seed=0,
        max_steps=None,
        device=torch.device("cpu"),
    )

    def features(rows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            maps = [model.backbone.forward_features(run.inputs(batch)) for batch in run.plain_batches(rows)]
        return np.concatenate([map_BCHW.mean((2, 3)).numpy() for map_BCHW in maps])

    rows = {split: table.rows(split) for split in ("train", "val", "test")}
    features_of = {split: features(found) for split, found in rows.items()}
    probed = []
    for index in range(len(table.attributes)):
        labels = {split: table.labels_NL[found, index] for split, found in rows.items()}
        pairs = {split: (features_of[split][of != MISSING], of[of != MISSING]) for split, of in labels.items()}
        fits = [LogisticRegression(C=penalty, max_iter=2000).fit(*pairs["train"]) for penalty in PENALTIES]
        hms = [metrics.hm_of(pairs["val"][1], fit.predict(pairs["val"][0])) for fit in fits]
        best = fits[int(np.argmax(hms))]
        probed.append(Probed(max(hms), pairs["test"][1], best.predict(pairs["test"][0])))
    return probed
