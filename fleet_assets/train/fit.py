"""Training.

In: frames, a recipe. Out: a model in PyTorch. The budget is counted in steps, never in time: the same frames and recipe give
the same weights on the same type of machine, whether the training ran through or was killed and went on from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fleet_assets.edge.memory import Lag
from fleet_assets.errors import FleetError
from fleet_assets.train.batches import (
    LEAST_LEARNING,
    Batch,
    batch_of,
    fingerprint,
    refuse_without_memory,
    rows_of_step,
    statistics_of,
)
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.model import Detector, Output, Temporal, make

_ALONE_WEIGHT = 0.3  # of what each sensor makes of it alone, beside the fused result
_OFFSET_WEIGHT = 1.0
_WARM_UP = 0.1  # share of the steps
_PIECE = 32  # frames that are judged at once


def _half_is_faster() -> bool:
    """Without matrix units, a step takes a quarter longer in bfloat16 than in float32."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


@dataclass(frozen=True)
class Recipe:
    """dropout: share of frames from which a sensor is taken. part: the prefix of the parameters' names that learn, all if
    empty: `specialists.radar` alone, while the rest stays as it is. half: bfloat16 where it is safe. threads: more are not
    always faster. device: as torch names it, such as cuda. All three give other rounding."""

    form: str = "attention"
    steps: int = 500
    batch: int = 8
    learning_rate: float = 6e-3
    weight_decay: float = 1e-4
    dropout: float = 0.1
    seed: int = 0
    part: str = ""
    half: bool = field(default_factory=_half_is_faster)
    threads: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Fitted:
    """model: on the CPU, wherever it learned. statistics: of edge/inputs.py:normalised. losses: [steps]. fingerprint: of frames,
    recipe and start."""

    model: Detector
    statistics: dict[str, np.ndarray]
    recipe: Recipe
    losses: list[float]
    fingerprint: str


def fit(
    frames: FrameSet,
    recipe: Recipe,
    *,
    start: Fitted | None = None,
    checkpoint: Path | None = None,
    every: int = 50,
    progress: Callable[[int, float], None] | None = None,
) -> Fitted:
    """start: goes on from its weights and statistics, as for a part. checkpoint: written every so many steps, and taken up
    if it is there. progress: after each step, its number and loss. Raises FleetError for a checkpoint of another training,
    or none."""
    if not len(frames):
        raise FleetError("There is nothing to learn from", remedy="Give a training set with frames.")
    with _arithmetic(recipe.threads):
        torch.manual_seed(recipe.seed)
        model, device = make(recipe.form), torch.device(recipe.device)
        statistics = start.statistics if start else statistics_of(frames)
        refuse_without_memory(frames, model.lag, LEAST_LEARNING)
        if start:
            model.load_state_dict(start.model.state_dict())
        model = model.to(device).to(memory_format=torch.channels_last)
        learning = [values for name, values in model.named_parameters() if name.startswith(recipe.part)]
        if not learning:
            raise FleetError(f"{recipe.form} has no part {recipe.part}", remedy="See the names of its modules.")
        identity = _identity(frames, recipe, start)
        optimizer = torch.optim.AdamW(learning, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        state = _read(checkpoint, identity)
        if state is not None:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        losses: list[float] = state["losses"] if state else []
        _train_mode(model, recipe.part)
        for step in range(len(losses), recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _rate(step, recipe.steps)
            batch = _batch(frames, statistics, recipe, step, model.lag).to(device)
            losses.append(_step(model, learning, optimizer, batch, recipe))
            if not math.isfinite(losses[-1]):
                raise FleetError("The training diverged", where=f"step {step}", remedy="Lower the learning rate.")
            if checkpoint is not None and (step + 1) % every == 0:
                _write(checkpoint, identity, model, optimizer, losses)
            if progress:
                progress(step + 1, losses[-1])
        return Fitted(model.eval().cpu(), statistics, recipe, losses, identity)


@contextmanager
def _arithmetic(threads: int) -> Iterator[None]:
    """Of a training and of nothing else in the process: where tiny numbers are taken for zero, features have other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def loss_of(fitted: Fitted, frames: FrameSet) -> float:
    """Mean loss of the fused result on frames as they are: what forms and hyperparameters are chosen by."""
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(frames), _PIECE):
            rows = np.arange(start, min(start + _PIECE, len(frames)))
            batch = batch_of(frames, rows, fitted.statistics, lag=fitted.model.lag)
            total += float(_loss(fitted.model(**given(fitted.model, batch)), batch)) * rows.size
    return total / max(len(frames), 1)


def _batch(frames: FrameSet, statistics: dict[str, np.ndarray], recipe: Recipe, step: int, lag: Lag | None) -> Batch:
    rows = rows_of_step(len(frames), recipe.batch, recipe.seed, step)
    random = np.random.default_rng([recipe.seed, step, 1])
    return batch_of(frames, rows, statistics, random=random, dropout=recipe.dropout, lag=lag)


def given(model: Detector, batch: Batch) -> dict[str, Tensor]:
    """What a model is given for a batch; of one that remembers, with its memory of the earlier frames."""
    if batch.before is None:
        return batch.inputs
    assert isinstance(model, Temporal)  # noqa: S101 - no other form has a lag, and so a frame before
    return {**batch.inputs, "earlier": model.memory(batch.before).float()}


def _train_mode(model: Detector, part: str) -> None:
    """What does not learn keeps its running statistics too."""
    for name, module in model.named_modules():
        module.training = name.startswith(part)


def _step(
    model: Detector, learning: list[Any], optimizer: torch.optim.Optimizer, batch: Batch, recipe: Recipe
) -> float:
    with torch.autocast(torch.device(recipe.device).type, torch.bfloat16, enabled=recipe.half):
        results = model.results(given(model, batch))
    fused = _loss(results.pop("fused"), batch)
    # A combiner learns from its specialists without changing them, so all losses may simply be added.
    alone = sum((_loss(result, batch) for result in results.values()), torch.zeros_like(fused))
    total = fused + _ALONE_WEIGHT * alone
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(learning, 5.0)
    optimizer.step()
    return float(total.detach())


def _loss(result: Output, batch: Batch) -> Tensor:
    """Focal loss on the heat, as CornerNet and CenterNet have it (Zhou et al., "Objects as points", 2019), and the place
    in the cell."""
    heat, offset = result[0].float(), result[1].float()
    score = torch.sigmoid(heat)
    centre = (batch.heat == 1.0).float()
    hit = centre * (1.0 - score) ** 2 * functional.logsigmoid(heat)
    miss = (1.0 - centre) * (1.0 - batch.heat) ** 4 * score**2 * functional.logsigmoid(-heat)
    count = batch.centre.sum().clamp(min=1.0)
    off = (batch.centre * (offset - batch.offset).abs()).sum()
    return (_OFFSET_WEIGHT * off - hit.sum() - miss.sum()) / count


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: up in a line, down in half a cosine."""
    up = max(1, round(_WARM_UP * steps))
    if step < up:
        return (step + 1) / up
    return 0.5 * (1.0 + math.cos(math.pi * (step - up) / max(1, steps - up)))


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def _identity(frames: FrameSet, recipe: Recipe, start: Fitted | None) -> str:
    told = {"frames": fingerprint(frames), "recipe": asdict(recipe), "start": start and weights_hash(start.model)}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def weights_hash(model: torch.nn.Module) -> str:
    """sha256 of names and bits of a model's weights and running statistics."""
    found = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        found.update(name.encode() + values.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def _write(path: Path, identity: str, model: Detector, optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
    """In one step, so that a kill leaves the old one or the new one."""
    fresh = path.with_name(f".{path.name}.new")
    state = {"identity": identity, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
    with open(fresh, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def _read(path: Path | None, identity: str) -> dict[str, Any] | None:
    if path is None or not path.exists():
        return None
    remedy = "Remove it to begin anew."
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["identity"]
    except Exception as error:  # torch raises what it likes on bytes that are none of its own
        raise FleetError(f"{path} is no checkpoint: {error}", remedy=remedy) from error
    if found != identity:
        raise FleetError(f"{path} is of another training: frames, recipe or start differ", remedy=remedy)
    return dict(state)
