"""The two phases: everything end to end, then the heads alone, each attribute keeping its own best epoch."""

# B batch, C channels, H height, W width, L attributes

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from runtime.errors import UserError
from train import batchnorm, memory, network, optimise, processes
from train.best import BestEpoch, BestHeads
from train.clock import Clock
from train.curves import Epoch
from train.metrics import Score, mean_hm
from train.network import FacetModel, Output
from train.objective import Means, Objective
from train.optimise import Average, Optimiser
from train.resume import FILE, Progress, Saved, digest, quoted, unquoted
from train.run import Run

# Photos from which BatchNorm takes its statistics.
BATCHNORM_PHOTOS = 320
# Validation photos that the untrained model is scored on: its heads answer at random, and nothing waits for the figure.
FIRST_LOOK = 1024
# The next evaluation may take so much longer than the last.
EVALUATION_MARGIN = 1.3

Keep = Callable[["State"], None]


@dataclass(kw_only=True)
class State:
    """All that changes in a phase."""

    run: Run
    number: int
    clock: Clock
    optimiser: Optimiser
    averaged: Average | None
    best: BestEpoch | BestHeads
    evaluations: int
    """That are still to come when the last step is taken."""
    later: int
    """That come with the phases after it."""

    @property
    def judged(self) -> FacetModel:
        """The model that is evaluated and kept."""
        return self.averaged.model if self.averaged else self.run.model

    def saved(self) -> Saved:
        """To go on from."""
        tensors, values = self.optimiser.state()
        averaged = {"averaged": self.averaged.model.state_dict()} if self.averaged else {}
        return Saved(
            progress=Progress(
                begun_with=digest(self.run),
                phase=self.number,
                reserve_s=self.clock.reserve_s,
                optimiser=values,
                scores=tuple(self.best.scores),
                history=tuple(self.run.history),
                unreadable=tuple(sorted(map(quoted, self.run.unreadable))),
            ),
            tensors={
                "model": self.run.model.state_dict(),
                "best": self.best.state(),
                "optimiser": tensors,
                **averaged,
            },
        )

    def restore(self, saved: Saved) -> None:
        """Go on from there; UserError where that is the state of another network."""
        try:
            self._restore(saved)
        except (KeyError, RuntimeError, TypeError, ValueError) as err:
            said = str(err).splitlines()[0]
            raise UserError(
                f"the state to go on from is not of this network: {said}\nstart anew: remove {FILE} from its folder"
            ) from None

    def _restore(self, saved: Saved) -> None:
        self.run.model.load_state_dict(saved.tensors["model"])
        if self.averaged:
            self.averaged.model.load_state_dict(saved.tensors["averaged"])
        self.best.load(saved.tensors["best"], list(saved.progress.scores))
        self.optimiser.load_state(saved.tensors.get("optimiser", {}), saved.progress.optimiser)
        self.run.history[:] = saved.progress.history
        # By name: the folder may be named from elsewhere since, or have been moved.
        names = {unquoted(path).name for path in saved.progress.unreadable}
        table = self.run.table
        self.run.unreadable |= {path for path in (*table.paths, *table.targets) if path.name in names}
        self.clock.spent_s = self.run.history[-1].seconds
        self.clock.reserve_s = saved.progress.reserve_s
        self.run.bar(self.optimiser.taken)


def train(
    run: Run,
    number: int,
    *,
    clock: Clock | None = None,
    saved: Saved | None = None,
    keep: Keep = lambda state: None,
    evaluations: int = 1,
    later: int = 0,
) -> list[Score]:
    """Go through a phase; the model is left with the best of its epochs, whose scores are given back.

    Args:
        clock: ends the phase in time, with the schedule run down.
        saved: the state of this phase to go on from.
        keep: called after each epoch.
        evaluations: how many follow the last step and must fit into the time, the phase's own among them.
        later: how many come with the phases after it, and must fit into what is left for those, or into this one's.
    """
    memory.keep_freed()
    clock = clock or Clock()

    def gone() -> float:
        # The clocks of several processes differ by a little; their rates must not.
        return 0.0 if clock.limit_s is None else processes.largest(clock.gone, run.device)

    learner = _EndToEnd(run) if number == 1 else _HeadsAlone(run)
    phase = learner.phase
    state = State(
        run=run,
        number=number,
        clock=clock,
        optimiser=Optimiser(learner.groups, phase, run.steps(phase), gone=gone, half=run.half is torch.float16),
        averaged=Average(run.model, phase.ema_decay) if phase.ema_decay else None,
        best=learner.best,
        evaluations=evaluations,
        later=later,
    )
    if saved:
        state.restore(saved)
    else:
        # A time limit must know how long all of them take, and phase 2 which heads it began with.
        _epoch_ended(state, 0, Means(), most=FIRST_LOOK if number == 1 and clock.limit_s is None else None)
    objective = Objective(run, phase)
    for epoch in range(run.history[-1].epoch, run.epochs(phase)):
        if gone() >= 1:
            break
        # Dropout depends on nothing but this: an epoch that is begun again is the same.
        torch.manual_seed(abs(hash((run.seed, number, epoch, processes.rank()))))
        learner.mode()
        losses = Means()
        for batches in run.training_steps(phase, epoch, number=number):
            counts_L = objective.counts(batches)
            for batch in batches:
                with learner.synchronised(batch is batches[-1]):
                    loss, parts = objective(learner, batch, counts_L, passes=len(batches))
                    state.optimiser.collect(loss)
                losses.add(parts)
            state.optimiser.step()
            if state.averaged:
                state.averaged.follow(run.model, state.optimiser.taken)
            run.bar(1)
            if gone() >= 1:
                break
        _epoch_ended(state, epoch + 1, losses)
        keep(state)
    run.model.load_state_dict(state.best.state())
    return state.best.scores


def _epoch_ended(state: State, epoch: int, losses: Means, *, most: int | None = None) -> None:
    before_s = state.clock.seconds
    state.run.bar.tell("validation")
    found = state.run.evaluate(state.judged, most=most)
    one_s = EVALUATION_MARGIN * (state.clock.seconds - before_s)
    state.clock.reserve_s = one_s * state.evaluations + max(0.0, one_s * state.later - state.clock.after_s)
    optimise.require_finite(sum(score.loss for score in found), "validation loss")
    state.best.see(state.judged, found)
    if epoch:
        state.optimiser.epoch_ended(sum(score.loss for score in found))
    state.run.bar.tell(f"best HM {mean_hm(state.best.scores):.3f}")
    state.run.history.append(
        Epoch(
            phase=state.number,
            epoch=epoch,
            steps=state.optimiser.taken,
            seconds=state.clock.seconds,
            loss=losses.of("loss"),
            mmd=losses.of("mmd"),
            rate=state.optimiser.rate,
            scores=tuple(found),
        )
    )


class _EndToEnd:
    """Phase 1: what learns, and how a batch goes through it."""

    def __init__(self, run: Run) -> None:
        self.phase = run.preset.phase1
        self._model = run.model
        rows = np.random.default_rng(run.seed).permutation(run.rows(self.phase))[:BATCHNORM_PHOTOS]
        run.bar.tell("first look")
        batches = (batch for batch in run.plain_batches(rows) if len(batch.images_BHWC))
        batchnorm.recentre(run.model.backbone, (run.inputs(batch) for batch in batches))
        if processes.world() > 1:
            # The processes wait for the gradient of every parameter that can have one.
            for parameter in network.unused(run.model, run.device):
                parameter.requires_grad_(False)
        self.groups = optimise.end_to_end(run.model, self.phase)
        self.best = BestEpoch(run.model)
        compiled: nn.Module = torch.compile(run.model) if run.compiled else run.model  # type: ignore[assignment]
        self._network = processes.parallel(compiled, run.device)

    def mode(self) -> None:
        self._model.train()
        batchnorm.freeze(self._model)

    def __call__(self, inputs_BCHW: Tensor) -> Output:
        output: Output = self._network(inputs_BCHW)
        return output

    def synchronised(self, last: bool) -> AbstractContextManager[object]:
        """Around a pass: gradients go to the other processes with a step's last one."""
        return processes.synchronised(self._network, last)


class _HeadsAlone:
    """Phase 2: the backbone is frozen, and goes through each photo once for all heads."""

    def __init__(self, run: Run) -> None:
        self.phase = run.preset.phase2
        self._model = run.model
        self.groups = optimise.heads_alone(run.model, self.phase)
        self.best = BestHeads(run.model, run.table.keys)
        self._heads = processes.parallel(run.model.heads, run.device)

    def mode(self) -> None:
        self._model.eval()
        self._model.heads.train()

    def __call__(self, inputs_BCHW: Tensor) -> Output:
        with torch.no_grad():
            map_BCHW = self._model.map(inputs_BCHW)
        return Output(self._heads(map_BCHW), map_BCHW.mean((2, 3)))

    def synchronised(self, last: bool) -> AbstractContextManager[object]:
        """Around a pass: gradients go to the other processes with a step's last one."""
        return processes.synchronised(self._heads, last)
