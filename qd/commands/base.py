"""``make base``: rebuilds every shipped model, stage by stage; each stage goes on where it was stopped."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from qd.builtin import adherence, codec, gate, language_model, preference, tokens
from qd.builtin.adherence import AdherenceStageConfig
from qd.builtin.codec import CodecStageConfig
from qd.builtin.gate import GateConfig
from qd.builtin.language_model import LanguageModelStageConfig
from qd.builtin.preference import PreferenceStageConfig
from qd.builtin.stage import RESUME_COMMAND
from qd.builtin.tokens import TokensStageConfig
from qd.commands.train_embedder import ASSET, train_embedder
from qd.config.checks import bounded
from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import ConfigError, load_config
from qd.models.checkpoints.resolver import ASSETS
from qd.runs.folders import CHECKPOINT
from qd.runs.quiet import quieten_libraries

StageConfig = TypeVar("StageConfig")


@dataclass(frozen=True)
class Stage:
    """How a stage is run, and where what it makes is found.

    Attributes:
        run: works in the folder that it is given.
        asset: folder of the result inside the stage's.
        last: the file of the result that is written last: where it stands, the stage is complete.
        always: run it even then: it finds out by itself, and soon, what of its work still holds.
        shipped: where the package looks for the asset, in ``ASSETS``; None if it is not shipped.
    """

    run: Callable[[BaseConfig, Path], object]
    asset: str = "asset"
    last: str = "README.md"
    always: bool = False
    shipped: str | None = None


@dataclass
class EmbedderStageConfig:
    """An embedder run: a config of configs/embedder/, and dotted overrides of it."""

    config: str = "default"
    overrides: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """Every problem of the config that they give, one sentence each."""
        problems = [
            f"override {text!r} moves the run out of the stage's folder; remove it"
            for text in self.overrides
            if text.partition("=")[0].strip() in ("name", "trainer.runs")
        ]
        try:
            load_config(EmbedderTrainConfig, "embedder", self.config, self.overrides)
        except ConfigError as error:
            problems += error.problems
        return problems


@dataclass
class BaseConfig:
    """All stages of ``make base``.

    Attributes:
        seed: added to the seed of every stage.
        folder: each stage works in a folder of its own in here.
    """

    seed: int = 0
    folder: str = "runs/base"
    codec: CodecStageConfig = field(default_factory=CodecStageConfig)
    tokens: TokensStageConfig = field(default_factory=TokensStageConfig)
    base: LanguageModelStageConfig = field(default_factory=LanguageModelStageConfig)
    adherence: AdherenceStageConfig = field(default_factory=AdherenceStageConfig)
    preference: PreferenceStageConfig = field(default_factory=PreferenceStageConfig)
    embedder: EmbedderStageConfig = field(default_factory=EmbedderStageConfig)
    embedder_heldout: EmbedderStageConfig = field(default_factory=lambda: EmbedderStageConfig("heldout"))
    gate: GateConfig = field(default_factory=GateConfig)

    def problems(self) -> list[str]:
        """Every invalid value, one sentence each; empty when the stages can start."""
        problems = bounded("seed", self.seed, 0)
        for name in STAGES:
            stage = getattr(self, name)
            mark = ": " if isinstance(stage, EmbedderStageConfig) else "."  # its problems begin with more than a key
            problems += [f"{name}{mark}{problem}" for problem in stage.problems()]
        clips, batch = self.tokens.clips, self.base.batch_size
        if clips < batch:
            problems.append(f"tokens.clips is {clips}; expected base.batch_size={batch} or more")
        return problems


def build(stages: Sequence[str] | None = None, config: str | None = None, install: bool = False) -> dict[str, Path]:
    """Runs stages in their order; one whose asset is complete is passed over.

    Two stages always run, because their inputs may have changed: tokens refuses another codec than the one that it
    encoded with, and the gate measures what it has not yet measured of this model with these scorers and embedders.

    A stage takes the codec and tokens of this build or, where it has none, the shipped codec. The gate measures the
    base model of this build, or else the shipped one, with the scorers and embedders that are *installed*.

    Args:
        stages: names out of ``STAGES``; None for all.
        config: overlay: a file of configs/base/, or the path of a YAML file.
        install: copy each of these stages' assets to where the package looks for it, as soon as it is complete.

    Returns:
        Each stage's asset folder.

    Raises:
        ConfigError: names every problem of the config.
        ValueError: for an unknown stage, one that needs an earlier stage that is not complete, or one that finds work
            made of something else than it is given.
        KeyboardInterrupt: Ctrl-C; the message says how to go on.
    """
    if unknown := [stage for stage in stages or () if stage not in STAGES]:
        raise ValueError(f"unknown stage {', '.join(unknown)}: expected some of {', '.join(STAGES)}")
    settings: BaseConfig = load_config(BaseConfig, "base", config)
    quieten_libraries()
    assets = {}
    for name in [name for name in STAGES if stages is None or name in stages]:
        try:
            assets[name] = _built(settings, name)
        except KeyboardInterrupt as stopped:
            saved = f"what stage {name} has saved is in {_folder(settings, name)}"
            raise KeyboardInterrupt(f"{saved}; to go on: {_command(stages, config, install)}") from stopped
        if install:
            _install(name, assets[name])
    return assets


def _command(stages: Sequence[str] | None, config: str | None, install: bool) -> str:
    """What to type to do the same again."""
    given = {"STAGE": " ".join(stages or ()), "CONFIG": config, "ARGS": "--install" if install else None}
    return " ".join([RESUME_COMMAND, *(f"{name}={shlex.quote(value)}" for name, value in given.items() if value)])


def _built(config: BaseConfig, name: str) -> Path:
    """The asset of a stage, after the work that it lacks."""
    if STAGES[name].always or _finished(config, name) is None:
        print(f"stage {name}: working in {_folder(config, name)}")
        STAGES[name].run(config, _folder(config, name))
    asset = _needed(config, name)
    print(f"stage {name}: complete in {asset}")
    return asset


def _codec(config: BaseConfig, folder: Path) -> None:
    codec.run(_seeded(config.codec, config.seed), folder)


def _tokens(config: BaseConfig, folder: Path) -> None:
    tokens.run(config.tokens, folder, _codec_folder(config))


def _base(config: BaseConfig, folder: Path) -> None:
    language_model.run(_seeded(config.base, config.seed), folder, _needed(config, "tokens"), _codec_folder(config))


def _adherence(config: BaseConfig, folder: Path) -> None:
    adherence.run(replace(_seeded(config.adherence, config.seed), codec=str(_codec_folder(config))), folder)


def _preference(config: BaseConfig, folder: Path) -> None:
    preference.run(replace(_seeded(config.preference, config.seed), codec=str(_codec_folder(config))), folder)


def _embedder(config: BaseConfig, folder: Path) -> None:
    stage: EmbedderStageConfig = getattr(config, folder.name)
    codec = _finished(config, "codec") or "base"  # by its name, because the card of the embedder tells it
    given = {"name": folder.name, "trainer.runs": str(folder.parent), "codec.model": str(codec)}
    overrides = [*(f"{key}={json.dumps(value)}" for key, value in given.items()), *stage.overrides]
    begun = (folder / CHECKPOINT).is_file()
    if folder.exists() and not begun:
        shutil.rmtree(folder)  # stopped before its first checkpoint: nothing to go on from
    run_config = load_config(EmbedderTrainConfig, "embedder", stage.config, overrides)
    train_embedder(_seeded(run_config, config.seed), resume=folder if begun else None)


def _gate(config: BaseConfig, folder: Path) -> None:
    gate.run(_seeded(config.gate, config.seed), _finished(config, "base") or _shipped(config, "base"), folder)


STAGES = {
    "codec": Stage(_codec, shipped="base/codec"),
    "tokens": Stage(_tokens, asset="", always=True),
    "base": Stage(_base, shipped="base"),
    "adherence": Stage(_adherence, shipped="adherence"),
    "preference": Stage(_preference, shipped="preference"),
    "embedder": Stage(_embedder, asset=ASSET, shipped="embedder"),
    "embedder_heldout": Stage(_embedder, asset=ASSET, shipped="embedder_heldout"),
    "gate": Stage(_gate, asset="", last="gate.json", always=True),
}


def _folder(config: BaseConfig, name: str) -> Path:
    return Path(config.folder) / name


def _finished(config: BaseConfig, name: str) -> Path | None:
    """The asset of a stage, if it is complete."""
    asset = _folder(config, name) / STAGES[name].asset
    return asset if (asset / STAGES[name].last).is_file() else None


def _needed(config: BaseConfig, name: str) -> Path:
    asset = _finished(config, name)
    if asset is None:
        raise ValueError(f"the stage {name!r} is not complete in {_folder(config, name)}: run `qd base --stage {name}`")
    return asset


def _codec_folder(config: BaseConfig) -> Path:
    return _finished(config, "codec") or _shipped(config, "codec")


def _shipped(config: BaseConfig, name: str) -> Path:
    """The installed asset of a stage, or the error that tells how to make one."""
    installed = ASSETS / STAGES[name].shipped
    return installed if (installed / STAGES[name].last).is_file() else _needed(config, name)


def _seeded(stage: StageConfig, seed: int) -> StageConfig:
    return replace(stage, seed=stage.seed + seed)


def _install(name: str, asset: Path) -> None:
    """Copies an asset to where the package looks for it; the gate's report ends the card of the base model."""
    if name == "gate":
        card = ASSETS / "base" / "README.md"
        before, *_ = card.read_text(encoding="utf-8").split(gate.HEADING)
        report = (asset / "gate.md").read_text(encoding="utf-8")
        card.write_text(f"{before.rstrip()}\n\n{report}", encoding="utf-8")
    elif (shipped := STAGES[name].shipped) is not None:
        shutil.copytree(asset, ASSETS / shipped, dirs_exist_ok=True)
