"""What a phase keeps while it goes on changing: the best epoch of the whole model, or of each head alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor

from train import metrics
from train.metrics import Score
from train.network import FacetModel


class BestEpoch:
    """Keeps the whole state of the epoch that scored highest."""

    def __init__(self, model: FacetModel) -> None:
        self._state: dict[str, Tensor] = copy.deepcopy(model.state_dict())
        self.scores: list[Score] = []

    def see(self, model: FacetModel, scores: list[Score]) -> None:
        """Consider the model as it is now, which scored so."""
        if not self.scores or metrics.mean_hm(scores) > metrics.mean_hm(self.scores):
            self.scores, self._state = scores, copy.deepcopy(model.state_dict())

    def state(self) -> dict[str, Tensor]:
        """The state of a model that is the best in everything."""
        return self._state

    def load(self, state: dict[str, Tensor], scores: list[Score]) -> None:
        """Go on from what was kept before."""
        self._state, self.scores = state, scores


class BestHeads:
    """Keeps each attribute's head from its own best epoch; one that validation has no label for, from the last."""

    def __init__(self, model: FacetModel, keys: Sequence[tuple[str, str]]) -> None:
        """`keys` names the category and attribute of each head."""
        self._model = model
        self._keys = keys
        self._heads = copy.deepcopy(model.heads)
        self._scores: dict[tuple[str, str], Score] = {}

    @property
    def scores(self) -> list[Score]:
        """Of the heads that are kept."""
        return list(self._scores.values())

    def see(self, model: FacetModel, scores: list[Score]) -> None:
        """Consider each head as it is now; `scores` has none for an attribute that validation has no label of."""
        found = {(score.category, score.attribute): score for score in scores}
        for index, key in enumerate(self._keys):
            score, best = found.get(key), self._scores.get(key)
            if score and best and score.hm <= best.hm:
                continue
            if score:
                self._scores[key] = score
            for kept, now in zip(self._heads.rows_of(index), model.heads.rows_of(index), strict=True):
                kept.copy_(now)

    def state(self) -> dict[str, Tensor]:
        """The state of a model that is the best in everything."""
        heads = {f"heads.{name}": value for name, value in self._heads.state_dict().items()}
        return self._model.state_dict() | heads

    def load(self, state: dict[str, Tensor], scores: list[Score]) -> None:
        """Go on from what was kept before."""
        self._heads.load_state_dict(
            {name.removeprefix("heads."): value for name, value in state.items() if name.startswith("heads.")}
        )
        self._scores = {(score.category, score.attribute): score for score in scores}
