"""What was trained, as others take it: a checkpoint like any other, and heads bound to it.

save_encoder(model, "run/encoder")                 # for `-m run/encoder` of every command
save_head(model, task, "run/encoder", "run/head")  # for `python -m speechfeat.predict run/head`
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from speechfeat.encoders.checkpoint import read_checkpoint
from speechfeat.encoders.loading import load_encoder, locate
from speechfeat.encoders.options import CheckpointOptions
from speechfeat.errors import ParameterError
from speechfeat.heads.base import Head, HeadRecord
from speechfeat.heads.binding import Binding
from speechfeat.heads.networked import FrameHead
from speechfeat.heads.pooled import PooledHead
from speechfeat.heads.states import describe_pipeline
from speechfeat.store_config import disk_errors
from speechfeat.transfer.adapters import merge_adapters
from speechfeat.transfer.heads import LOGISTIC, PooledClassifier
from speechfeat.transfer.model import TransferModel
from speechfeat.transfer.objectives import Task


def save_encoder(model: TransferModel, directory: str | os.PathLike[str]) -> None:
    """Write the encoder as a checkpoint with as many blocks as it was opened with.

    Adapters are merged, in the model too. Blocks above the deepest that was trained are those of the original, and what
    a speech recogniser has above its blocks is left out.

    Args:
        model: that was trained.
        directory: made if it is not there; a checkpoint in it is replaced.

    Raises:
        ParameterError: if the directory holds something else.
        ModelError: if the original is no longer there.
        StoreError: if the disk refuses.
    """
    target = Path(directory)
    if target.exists() and not (target / "config.json").is_file():
        raise ParameterError(f"{str(target)!r} is there already and no checkpoint; give another path")
    merge_adapters(model)
    options = CheckpointOptions(**model.options)
    family, original, extractor = read_checkpoint(locate(model.encoder.name), options)
    # Before the family changes the modules, and with them the names, in place.
    state = original.state_dict(keep_vars=True)
    _overwrite(family.backbone(original, extractor, options).module, model.backbone.state_dict())
    temporary = target.with_name(target.name + ".tmp")
    with disk_errors(f"write {target}"):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        original.save_pretrained(temporary, state_dict={name: value.detach() for name, value in state.items()})
        extractor.save_pretrained(temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)


def save_head(
    model: TransferModel,
    task: Task,
    encoder: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    training: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
) -> Head:
    """Write the head of a task, bound to the encoder that was saved.

    Args:
        model: that was trained.
        task: that the head is of.
        encoder: where `save_encoder` wrote it.
        directory: of the head; a head in it is replaced.
        training: for the record: what it was trained on.
        scores: for the record.

    Raises:
        ModelError: if there is no encoder.
        ParameterError: if something else is in the directory.
        StoreError: if the disk refuses.
    """
    opened = load_encoder(
        encoder,
        model.encoder.selection.indices,
        device="cpu",
        dtype="float32",
        short_window=model.options.get("short_window", False),
    )
    binding = Binding.of_encoder(opened, model.shapes[task.name].pool)
    head = make_head(model, task, binding, training or {}, scores or {})
    head.save(directory, overwrite=True)
    return head


def make_head(
    model: TransferModel, task: Task, binding: Binding, training: Mapping[str, Any], scores: Mapping[str, Any]
) -> Head:
    """The head of a task in the form of heads on stored features.

    Args:
        model: that was trained.
        task: that the head is of.
        binding: the features it takes.
        training: for the record.
        scores: for the record.
    """
    head = model.heads[task.name]
    if isinstance(head, PooledClassifier):
        pipeline = head.pipeline()
        options = {"pipeline": describe_pipeline(pipeline)[0]}
        return PooledHead(HeadRecord(LOGISTIC, task.name, task.classes, binding, options, training, scores), pipeline)
    shape = model.shapes[task.name]
    network = shape.network(len(binding.layers), model.encoder.dim)
    record = HeadRecord(shape.kind, task.name, task.classes, binding, {"network": network}, training, scores)
    return FrameHead.from_arrays(record, {name: value.cpu().numpy() for name, value in head.state_dict().items()})


def _overwrite(module: nn.Module, trained: Mapping[str, Tensor]) -> None:
    """Put trained weights into the module they were opened from; a baked weight normalisation is taken apart again."""
    with torch.no_grad():
        for name, value in trained.items():
            path, _, leaf = name.rpartition(".")
            owner = module.get_submodule(path)
            if parametrize.is_parametrized(owner, leaf):
                # Taken apart and put together, a weight is rounded; what was not trained is to stay as it was.
                if not torch.equal(getattr(owner, leaf).to(value.device), value):
                    setattr(owner, leaf, value)
            else:
                getattr(owner, leaf).copy_(value)
