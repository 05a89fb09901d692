"""Pretraining of the built-in base model: a decoder over delayed codes, trained together with its text encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from qd.builtin.captioned_codes import Batch, CaptionedCodes
from qd.builtin.captioned_language_model import CaptionedLanguageModel, ModelSize, held_out_losses
from qd.builtin.stage import CountFrom, IndexedStream, fit_stage, write_asset
from qd.builtin.stage_config import StageConfig, divisor_problems
from qd.builtin.tokenizer import MAX_VOCABULARY, MIN_VOCABULARY, train_tokenizer
from qd.builtin.tokens import TRAINING, VALIDATION, read_tokens, require_codec
from qd.data.world.captions import NEGATIVE_PROMPT
from qd.models.codecs.codec import FrameCodec
from qd.models.musicgen import MusicGen
from qd.modules.schedules import scheduled, warmup_cosine
from qd.schema.setting import setting


@dataclass
class LanguageModelStageConfig(StageConfig):
    """The base stage: size, batches and optimisation."""

    batch_size: int = 32
    max_steps: int = 4800
    warmup_steps: int = 200
    vocabulary: int = setting(MAX_VOCABULARY, "Number of text tokens.", ge=MIN_VOCABULARY, le=MAX_VOCABULARY)
    weight_decay: float = setting(0.1, "Weight decay of matrices and embeddings; gains of norms have none.", ge=0)
    beta1: float = setting(0.9, "Decay of the gradient's mean.", ge=0, lt=1)
    beta2: float = setting(0.95, "Decay of the gradient's mean square.", ge=0, lt=1)
    gradient_clip: float = setting(1.0, "Largest L2 norm of the gradient.", gt=0)
    condition_dropout: float = setting(
        0.15, "Share of the sequences that are trained under the null condition.", ge=0, lt=1
    )
    average_decay: float = setting(
        0.999, "Decay of the moving average of the weights, which is measured and saved.", ge=0, lt=1
    )
    validate_every: int = setting(800, "Interval between measurements of the held-out loss.", unit="steps", ge=1)
    model: ModelSize = field(default_factory=ModelSize)

    def rules(self, prefix: str) -> Iterator[str]:
        yield from super().rules(prefix)
        path, model = f"{prefix}model", self.model
        yield from divisor_problems(f"{path}.heads", model.heads, f"{path}.hidden_size", model.hidden_size)


class LanguageModelPretraining(pl.LightningModule):
    """Trains ``model`` and updates ``average``, the moving average of its weights."""

    def __init__(self, config: LanguageModelStageConfig, model: CaptionedLanguageModel, held_out: list[Batch]) -> None:
        super().__init__()
        self.config, self.model, self.held_out = config, model, held_out
        self.average = AveragedModel(model, avg_fn=partial(_updated_average, decay=config.average_decay))
        self.average.requires_grad_(False)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        loss = self.model(batch).mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        super().optimizer_step(*arguments, **options)
        self.average.update_parameters(self.model)  # here and not in a later hook: last.ckpt must hold this update

    def on_train_batch_end(self, *_: Any) -> None:
        if self.global_step % self.config.validate_every == 0 or self.global_step == self.trainer.max_steps:
            measured = held_out_losses(self.average.module, self.held_out)
            values = {f"held_out/{name}": value for name, value in measured.items()}
            self.logger.log_metrics(values, self.global_step)
            self.log("held_out", measured["loss"], prog_bar=True, logger=False)

    def configure_optimizers(self) -> dict[str, Any]:
        config, parameters = self.config, list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, config.learning_rate, (config.beta1, config.beta2))
        return scheduled(
            optimizer, partial(warmup_cosine, warmup_steps=config.warmup_steps, max_steps=config.max_steps)
        )


def run(config: LanguageModelStageConfig, folder: Path, tokens_folder: Path, codec_folder: Path) -> Path:
    """Trains the model or resumes its training in ``folder``, and writes the checkpoint ``folder/asset``.

    Args:
        config: Config of the stage.
        folder: Folder for last.ckpt, the TensorBoard events and the asset.
        tokens_folder: Output of the stage 'tokens'.
        codec_folder: The codec that made those tokens; becomes part of the checkpoint.

    Returns:
        The checkpoint folder: decoder/, text_encoder/, codec/, metrics.json and README.md.

    Raises:
        ValueError: The tokens come from another codec, or are incomplete.
    """
    codec = FrameCodec.from_pretrained(codec_folder)
    require_codec(tokens_folder, codec_folder)
    codes, captions = read_tokens(tokens_folder, TRAINING)
    tokenizer = train_tokenizer([*captions, NEGATIVE_PROMPT], config.vocabulary)
    clips = CaptionedCodes(codes, captions, tokenizer)
    held_out = CaptionedCodes(*read_tokens(tokens_folder, VALIDATION), tokenizer)
    batches = [held_out.take(rows) for rows in torch.arange(len(held_out)).split(config.batch_size)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # this stage uses the global random state only for the initial weights
        model = CaptionedLanguageModel(config.model, len(tokenizer), codec.codebooks, codec.codebook_size)
    module = LanguageModelPretraining(config, model, batches)
    seconds = fit_stage(
        module,
        partial(_loader, clips, config),
        folder,
        config.max_steps,
        config.checkpoint_every,
        config.precision,
        config.device,
        config.gradient_clip,
        checkpoint_minutes=config.checkpoint_minutes,
    )
    trained: CaptionedLanguageModel = module.average.module.cpu()
    card = _card(config, trained, len(clips), seconds, batches)
    checkpoint = MusicGen(trained.lm, trained.text_encoder, tokenizer, codec)
    return write_asset(folder / "asset", SimpleNamespace(save_pretrained=checkpoint.save), card)


def _loader(clips: CaptionedCodes, config: LanguageModelStageConfig, first_step: int) -> DataLoader:
    batch_of_step = partial(
        clips.training_batch,
        size=config.batch_size,
        condition_dropout=config.condition_dropout,
        seed=config.seed,
    )
    return DataLoader(IndexedStream(batch_of_step), batch_size=None, sampler=CountFrom(first_step))


def _updated_average(average: Tensor, current: Tensor, updates: Tensor, decay: float) -> Tensor:
    """Exponential moving average with a short start, so that it soon forgets the nearly random first weights."""
    return average.lerp(current, float(1 - torch.clamp((1 + updates) / (10 + updates), max=decay)))


def _card(
    config: LanguageModelStageConfig, model: CaptionedLanguageModel, clips: int, seconds: float, held_out: list[Batch]
) -> dict[str, Any]:
    return {
        "title": "Built-in base model",
        "description": (
            "MusicGen decoder and T5 text encoder, trained together from random weights on the built-in world. "
            "Losses are cross entropies in nats per token on clips of held-out pieces; `caption_gain` is the loss with "
            "another clip's caption minus the loss with the correct one."
        ),
        "command": "qd base --stage base",
        "data": f"{clips} captioned clips of the built-in world, split {TRAINING}",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": config.max_steps,
        "seconds": seconds,
        "config": asdict(config),
        "metrics": held_out_losses(model, held_out),
    }
