"""``make base``: rebuilds every shipped model, stage by stage; each stage resumes where it stopped."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
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
from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import ConfigError, load_config
from qd.data.worlds import EDITIONS
from qd.models.checkpoints.resolver import ASSETS
from qd.runs.folders import CHECKPOINT
from qd.schema.checker import Settings
from qd.schema.setting import setting

StageConfig = TypeVar("StageConfig")


@dataclass(frozen=True)
class Stage:
    """Function that does the work of a stage, and location of its result.

    Attributes:
        run: Function that works in the given folder.
        asset: Folder of the result inside the stage's folder.
        last: File of the result that is written last; if it exists, the stage is complete.
        always: Whether to run even a complete stage, which then quickly checks its own work.
        shipped: Location of the asset in the package, in ``ASSETS``; None if it is not shipped.
    """

    run: Callable[[BaseConfig, Path], object]
    asset: str = "asset"
    last: str = "README.md"
    always: bool = False
    shipped: str | None = None


@dataclass
class EmbedderStageConfig(Settings):
    """The run of an embedder."""

    config: str = setting("default", "Name of a file in configs/embedder/, or path of a YAML file.", path=True)
    overrides: list[str] = setting([], "Overrides of that config, by dotted keys: trainer.max_steps=200.")

    def rules(self, prefix: str) -> Iterator[str]:
        stage = prefix.rstrip(".")
        for text in self.overrides:
            if text.partition("=")[0].strip() in ("name", "trainer.runs"):
                yield f"{stage}: override {text!r} moves the run out of the stage's folder; remove it"
        try:
            load_config(EmbedderTrainConfig, "embedder", self.config, self.overrides)
        except ConfigError as error:
            yield from (f"{stage}: {problem}" for problem in error.problems)


@dataclass
class BaseConfig(Settings):
    """All stages of ``qd base``."""

    seed: int = setting(0, "Seed that is added to the seed of every stage.", ge=0)
    world: int = setting(1, "Edition of the built-in world for every stage.", ge=1, le=len(EDITIONS))
    folder: str = setting("runs/base", "Folder of the stages' folders.", path=True)
    codec: CodecStageConfig = field(default_factory=CodecStageConfig)
    tokens: TokensStageConfig = field(default_factory=TokensStageConfig)
    base: LanguageModelStageConfig = field(default_factory=LanguageModelStageConfig)
    adherence: AdherenceStageConfig = field(default_factory=AdherenceStageConfig)
    preference: PreferenceStageConfig = field(default_factory=PreferenceStageConfig)
    embedder: EmbedderStageConfig = field(default_factory=EmbedderStageConfig)
    embedder_heldout: EmbedderStageConfig = field(default_factory=lambda: EmbedderStageConfig("heldout"))
    gate: GateConfig = field(default_factory=GateConfig)

    def rules(self, prefix: str) -> Iterator[str]:
        clips, batch = self.tokens.clips, self.base.batch_size
        if clips < batch:
            yield f"tokens.clips is {clips}; expected base.batch_size={batch} or more"


def build(stages: Sequence[str] | None = None, config: str | None = None, install: bool = False) -> dict[str, Path]:
    """Runs stages in their order, except those whose asset is complete.

    Two stages always run, because their inputs may have changed: tokens refuses a codec that differs from the one of
    its shards, and the gate makes the measurements that are missing for this model, these scorers and embedders.

    A stage uses the codec and tokens of this build or, if there are none, the shipped codec. The gate measures the
    base model of this build, or else the shipped one, with the *installed* scorers and embedders.

    Args:
        stages: Names in ``STAGES``; None for all.
        config: Overlay: a file of configs/base/, or the path of a YAML file.
        install: Whether to copy the asset of each of these stages into the package, as soon as it is complete.

    Returns:
        The asset folder of each stage.

    Raises:
        ConfigError: Names every problem of the config.
        ValueError: A stage is unknown, needs an earlier stage that is not complete, or its folder holds work from
            other inputs.
        KeyboardInterrupt: A signal stopped the build; the message says how to resume.
    """
    if unknown := [stage for stage in stages or () if stage not in STAGES]:
        raise ValueError(f"unknown stage {', '.join(unknown)}: expected some of {', '.join(STAGES)}")
    settings: BaseConfig = load_config(BaseConfig, "base", config)
    assets = {}
    for name in [name for name in STAGES if stages is None or name in stages]:
        try:
            assets[name] = _built(settings, name)
        except KeyboardInterrupt as stopped:
            saved = f"stage {name} has saved its work in {_folder(settings, name)}"
            raise KeyboardInterrupt(f"{saved}; to resume: {_command(stages, config, install)}") from stopped
        if install:
            _install(name, assets[name])
    return assets


def _command(stages: Sequence[str] | None, config: str | None, install: bool) -> str:
    """The make command that starts the same build."""
    variables = {"STAGE": " ".join(stages or ()), "CONFIG": config, "ARGS": "--install" if install else None}
    return " ".join([RESUME_COMMAND, *(f"{name}={shlex.quote(value)}" for name, value in variables.items() if value)])


def _built(config: BaseConfig, name: str) -> Path:
    """Does the missing work of a stage, and returns its asset."""
    if STAGES[name].always or _finished(config, name) is None:
        print(f"stage {name}: working in {_folder(config, name)}")
        STAGES[name].run(config, _folder(config, name))
    asset = _needed(config, name)
    print(f"stage {name}: complete in {asset}")
    return asset


def _codec(config: BaseConfig, folder: Path) -> None:
    codec.run(_prepared(config, config.codec), folder)


def _tokens(config: BaseConfig, folder: Path) -> None:
    tokens.run(replace(config.tokens, world=config.world), folder, _codec_folder(config))


def _base(config: BaseConfig, folder: Path) -> None:
    language_model.run(_prepared(config, config.base), folder, _needed(config, "tokens"), _codec_folder(config))


def _adherence(config: BaseConfig, folder: Path) -> None:
    adherence.run(replace(_prepared(config, config.adherence), codec=str(_codec_folder(config))), folder)


def _preference(config: BaseConfig, folder: Path) -> None:
    preference.run(replace(_prepared(config, config.preference), codec=str(_codec_folder(config))), folder)


def _embedder(config: BaseConfig, folder: Path) -> None:
    stage: EmbedderStageConfig = getattr(config, folder.name)
    codec = _finished(config, "codec") or "base"  # the name, because the card of the embedder states it
    place = {
        "name": folder.name,
        "trainer.runs": str(folder.parent),
        "codec.model": str(codec),
        "data.world": config.world,
    }
    overrides = [*(f"{key}={json.dumps(value)}" for key, value in place.items()), *stage.overrides]
    resumable = (folder / CHECKPOINT).is_file()
    if folder.exists() and not resumable:
        shutil.rmtree(folder)  # stopped before its first checkpoint
    run_config = load_config(EmbedderTrainConfig, "embedder", stage.config, overrides)
    # A damaged last.ckpt is replaced by best.ckpt, which has the whole state too.
    train_embedder(_seeded(run_config, config.seed), resume=folder if resumable else None, recover=True)


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
    """The installed asset of a stage; if there is none, the asset of this build.

    Raises:
        ValueError: There is neither; the message names the command that builds one.
    """
    installed = ASSETS / STAGES[name].shipped
    return installed if (installed / STAGES[name].last).is_file() else _needed(config, name)


def _seeded(stage: StageConfig, seed: int) -> StageConfig:
    return replace(stage, seed=stage.seed + seed)


def _prepared(config: BaseConfig, stage: StageConfig) -> StageConfig:
    return replace(_seeded(stage, config.seed), world=config.world)


def _install(name: str, asset: Path) -> None:
    """Copies an asset into the package; the gate's report becomes the end of the base model's card."""
    if name == "gate":
        card = ASSETS / "base" / "README.md"
        before, *_ = card.read_text(encoding="utf-8").split(gate.HEADING)
        report = (asset / "gate.md").read_text(encoding="utf-8")
        card.write_text(f"{before.rstrip()}\n\n{report}", encoding="utf-8")
    elif (shipped := STAGES[name].shipped) is not None:
        shutil.copytree(asset, ASSETS / shipped, dirs_exist_ok=True)
