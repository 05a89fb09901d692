"""Bad inputs: folders of models, damaged runs and caches, and pages of a report."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save, save_file

from experiments.fault_attempt import CANARY, CODE, ROOT, Content, bad
from experiments.fault_case import Fault

ASSETS = ROOT / "qd" / "builtin" / "assets"
SAMPLE = "sample --model m --prompt x --n 1 --seconds 0.2 --device cpu --out out"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 2364430288\n"
CONFIG = json.dumps({"model_type": "musicgen"})
DEEP = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
INDEX = "model.safetensors.index.json"
LINES = 2
"""Most lines of an answer about a model: one that says what is loaded, and the error."""

FOREIGN: dict[str, tuple[Mapping[str, Content], tuple[str, ...]]] = {
    "a LoRA adapter": (
        {"adapter_config.json": '{"base_model_name_or_path": "a/b"}', "adapter_model.safetensors": ""},
        ("LoRA adapter of 'a/b'", "merge_and_unload"),
    ),
    "pickled weights": ({"config.json": CONFIG, "pytorch_model.bin": "x"}, ("pytorch_model.bin", "can run code")),
    "a git-lfs pointer": ({"config.json": CONFIG, "model.safetensors": POINTER}, ("git-lfs", "git lfs pull")),
    "audiocraft's own format": (
        {"state_dict.bin": "x", "compression_state_dict.bin": "x"},
        ("audiocraft", "musicgen-small"),
    ),
    "MusicGen-melody": (
        {"config.json": '{"model_type": "musicgen_melody"}', "model.safetensors": ""},
        ("MusicGen-melody", "musicgen-small"),
    ),
    "another model": (
        {"config.json": '{"model_type": "bert"}', "model.safetensors": save({"a": torch.zeros(1)})},
        ("bert", "musicgen"),
    ),
    "an empty folder": ({}, ("config.json",)),
    "a damaged adapter": ({"adapter_config.json": "{", "adapter_model.safetensors": ""}, ("adapter_config.json",)),
    "a GGUF file": ({"musicgen.gguf": b"GGUF" + bytes(20)}, ("config.json", "model.safetensors")),
    "an ONNX model": ({"config.json": CONFIG, "model.onnx": b"\x08"}, ("model.safetensors",)),
    "an absolute shard": (
        {"config.json": CONFIG, INDEX: '{"weight_map": {"a": "/etc/passwd"}}'},
        ("/etc/passwd", "same folder"),
    ),
    "a shard above": (
        {"config.json": CONFIG, INDEX: '{"weight_map": {"a": "../../x.safetensors"}}'},
        ("../../x", "same folder"),
    ),
    "an index of lists": ({"config.json": CONFIG, INDEX: '{"weight_map": ["a"]}'}, ("weight_map", "another shape")),
    "an empty index": ({"config.json": CONFIG, INDEX: "{}"}, (INDEX,)),
    "a missing shard": (
        {"config.json": CONFIG, INDEX: '{"weight_map": {"a": "b.safetensors"}}'},
        ("b.safetensors", "missing"),
    ),
    "deep JSON": ({"config.json": DEEP, "model.safetensors": save({"a": torch.zeros(1)})}, ("config.json", "deep")),
    "a list as config": (
        {"config.json": "[]", "model.safetensors": save({"a": torch.zeros(1)})},
        ("config.json", "list"),
    ),
    "a name of two lines": (
        {"config.json": json.dumps({"model_type": "a\nb\x1b[2J"}), "model.safetensors": ""},
        ("\\x1b",),
    ),
    "a config that is a device": ({"config.json": lambda path: path.symlink_to("/dev/zero")}, ("config.json",)),
    "a config that is a pipe": ({"config.json": lambda path: os.mkfifo(path)}, ("config.json",)),
    "weights that are a pipe": (
        {"config.json": CONFIG, "model.safetensors": lambda path: os.mkfifo(path)},
        ("model.safetensors",),
    ),
}
"""Files of the folder "m", and facts of the answer."""


def base(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    """Makes the shipped model of links to its files, then applies the changes."""

    def make(folder: Path) -> None:
        for file in (file for file in (ASSETS / "base").rglob("*") if file.is_file()):
            link = folder / file.relative_to(ASSETS / "base")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
        for change in changes:
            change(folder)

    return make


def write(name: str, content: bytes | str | Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Replaces a file; a function gets the old bytes."""

    def change(folder: Path) -> None:
        file = folder / name
        new = content(file.read_bytes()) if callable(content) else content
        file.unlink(missing_ok=True)
        file.write_bytes(new.encode() if isinstance(new, str) else new)

    return change


def settings(name: str, **values: object) -> Callable[[Path], None]:
    """Changes values of a JSON file."""
    return write(name, lambda old: json.dumps(json.loads(old) | values).encode())


def tensors(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Changes the tensors of a safetensors file."""

    def apply(folder: Path) -> None:
        stored = load_file(folder / name)
        change(stored)
        (folder / name).unlink()
        save_file(stored, folder / name, {"format": "pt"})

    return apply


def _nan(stored: dict[str, torch.Tensor]) -> None:
    stored[max(stored, key=lambda name: stored[name].numel())].view(-1)[0] = torch.nan


def _own_tokenizer(folder: Path) -> None:
    own = {"auto_map": {"AutoTokenizer": ["code.Own", None]}, "tokenizer_class": "Own"}
    settings("text_encoder/tokenizer_config.json", **own)(folder)
    settings("text_encoder/config.json", model_type="own", auto_map={"AutoConfig": "code.Own"})(folder)
    (folder / "text_encoder" / "code.py").write_text(CODE)


WEIGHTS = "decoder/model.safetensors"
DAMAGED: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "weights cut in half": (write(WEIGHTS, lambda old: old[: len(old) // 2]), (WEIGHTS, "damaged")),
    "empty weights": (write(WEIGHTS, b""), (WEIGHTS, "damaged")),
    "weights of text": (write(WEIGHTS, "hello" * 100), (WEIGHTS, "damaged")),
    "a header without end": (write(WEIGHTS, b"\xff" * 8 + bytes(100)), (WEIGHTS, "damaged")),
    "missing weights": (lambda folder: (folder / WEIGHTS).unlink(), (WEIGHTS, "missing")),
    "a missing config": (lambda folder: (folder / "decoder/config.json").unlink(), ("decoder/config.json",)),
    "a missing tokenizer": (
        lambda folder: (folder / "text_encoder/tokenizer.json").unlink(),
        ("tokenizer.json", "missing"),
    ),
    "a missing codec": (lambda folder: shutil.rmtree(folder / "codec"), ("codec/config.json",)),
    "a missing tensor": (tensors(WEIGHTS, lambda stored: stored.popitem()), ("m", "missing")),
    "a tensor of another shape": (
        tensors(WEIGHTS, lambda stored: stored.update({min(stored): torch.zeros(3, 5)})),
        ("shape",),
    ),
    "a NaN in the weights": (tensors(WEIGHTS, _nan), ("not finite", "m")),
    "an unreadable number": (
        write("decoder/config.json", '{"a": ' + "9" * 5000 + "}"),
        ("decoder/config.json", "damaged"),
    ),
    "a config of two documents": (write("decoder/config.json", "{}{}"), ("decoder/config.json", "damaged")),
    "a config without UTF-8": (write("codec/config.json", b'{"a": "\xff"}'), ("codec/config.json",)),
    "a million layers": (settings("decoder/config.json", num_hidden_layers=10**6), ("num_hidden_layers", "1000000")),
    "no head": (settings("decoder/config.json", num_attention_heads=0), ("num_attention_heads",)),
    "a vocabulary of 2⁶⁰": (settings("decoder/config.json", vocab_size=2**60), ("vocab_size",)),
    "a text as a width": (settings("decoder/config.json", ffn_dim="many"), ("ffn_dim",)),
    "a codec without stride": (settings("codec/config.json", hop_length=0), ("hop_length",)),
    "a codec of another size": (settings("codec/config.json", codebook_size=-1), ("codebook_size",)),
    "a deep tokenizer": (write("text_encoder/tokenizer.json", DEEP), ("text_encoder",)),
    "a tokenizer of another model": (write("text_encoder/tokenizer.json", "{}"), ("text_encoder",)),
    "a tokenizer with its own code": (_own_tokenizer, ("never run",)),
}
"""Change of the shipped model's folder, and facts of the answer."""


class Executed:
    """Its pickle makes a file when it is loaded."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(CANARY),)


def checkpoint(change: Callable[[dict], object]) -> bytes:
    """A checkpoint of Lightning's shape."""
    content = {
        "state_dict": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        "loops": {},
        "callbacks": {},
        "global_step": 1,
    }
    change(content)
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Executed()))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


CHECKPOINTS: dict[str, tuple[Content, tuple[str, ...]]] = {
    "an empty file": (b"", ("is empty",)),
    "a text": ("hello\n", ("no checkpoint",)),
    "the start of an archive": (b"PK\x03\x04", ("cut",)),
    "a cut file": (checkpoint(lambda content: None)[:300], ("cut",)),
    "a folder": (lambda path: path.mkdir(), ("folder",)),
    "a device": (lambda path: path.symlink_to("/dev/zero"), ()),
    "a pipe that nobody writes": (lambda path: os.mkfifo(path), ()),
    "a pickle that runs code": (pickle.dumps(Executed()), ("no checkpoint",)),
    "an archive that runs code": (_archive(), ("no checkpoint",)),
    "no step": (checkpoint(lambda content: content.pop("global_step")), ("global_step",)),
    "a step of text": (checkpoint(lambda content: content.update(global_step="1")), ("global_step",)),
    "no optimiser": (checkpoint(lambda content: content.pop("optimizer_states")), ("optimizer_states",)),
    "no tensor": (checkpoint(lambda content: None), ("tensors are missing",)),
}
"""Content of last.ckpt, and facts of the answer."""


def run_files(change: Callable[[str], str | bytes] = str) -> dict[str, Content]:
    """A run folder with its config, changed."""

    def make(path: Path) -> None:
        from qd.config.loading import load_config, to_yaml
        from qd.config.train import TrainConfig

        config = load_config(TrainConfig, "train", None, ["beta=0", "trainer.max_steps=2", "trainer.device=cpu"])
        config = replace(config, name="x", trainer=replace(config.trainer, runs="runs"))
        text = change(to_yaml(config))
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return {"runs/x/config.yaml": make}


CONFIGS: dict[str, tuple[Callable[[str], str | bytes], tuple[str, ...]]] = {
    "an empty file": (lambda text: "", ("incomplete",)),
    "the first half": (lambda text: text[: len(text) // 2], ("config.yaml", "line")),
    "no last letter": (lambda text: text.rstrip("\n")[:-1], ()),
    "no last line": (lambda text: text[: text.rstrip("\n").rindex("\n") + 1], ("incomplete",)),
    "a line that is no YAML": (lambda text: text + "a: [\n", ("cannot be read",)),
    "a secret": (lambda text: text + "extra: ${oc.env:HOME}\n", ("not read",)),
    "an unknown setting": (lambda text: text + "extra: 1\n", ("extra",)),
    "zero bytes": (lambda text: bytes(len(text)), ("config.yaml",)),
    "no UTF-8": (lambda text: text.encode() + b"# caf\xe9\n", ("config.yaml",)),
}
"""Change of the text of config.yaml, and facts of the answer."""


def library_cache(path: Path) -> None:
    """Makes a cache whose compiled loop is cut: every name that the loop can have is a damaged file."""
    from qd.models.sampling.compiled import find_compiler, library_file

    path.mkdir(parents=True)
    if command := find_compiler():
        file = library_file(command, path)
        file.write_bytes(b"\x7fELF")
        file.with_name(file.name + ".sha256").write_text("0" * 64 + "\n")


def hostile_points(path: Path) -> None:
    """Makes a results file of two points whose names are HTML."""
    from qd.evaluation.columns import METRICS
    from qd.evaluation.points import Point
    from qd.metrics.bootstrap import Interval

    script = "<script>alert(1)</script>"
    metrics = {name: Interval(0.5, 0.4, 0.6) for name in METRICS}
    common = {
        "step": 0,
        "beta": None,
        "guidance_scale": 1.0,
        "negative": script,
        "temperature": 1.0,
        "lam": None,
        "seed": 0,
        "protocol": "full",
        "scorers": script,
        "n_prompts": 8,
        "n_samples": 2,
        "metrics": metrics,
        "seconds": 1.0,
    }
    points = [Point(key=f"{n:016x}", run=script, model=f"{script}{n}", series="slider", **common) for n in range(2)]
    path.write_text("".join(f"{point.to_json()}\n" for point in points))


def faults() -> Iterator[Fault]:
    """Yields the bad models, runs, caches and pages."""
    for name, (files, facts) in FOREIGN.items():
        files = {f"m/{file}": content for file, content in files.items()} or {"m/": ""}
        yield bad("foreign or hostile model", name, SAMPLE, "'m", *facts, files=files, lines=LINES)
    for name, (change, facts) in DAMAGED.items():
        yield bad("damaged model", name, SAMPLE, *facts, files={"m": base(change)}, lines=LINES)
    for name, (content, facts) in CHECKPOINTS.items():
        yield bad("damaged last.ckpt", name, "train --resume runs/x", "runs/x/last.ckpt", *facts,
                  files={**run_files(), "runs/x/last.ckpt": content})  # fmt: skip
    for name, (change, facts) in CONFIGS.items():
        yield bad("damaged config.yaml", name, "train --resume runs/x", *facts, files=run_files(change))
    yield bad("damaged config.yaml", "missing", "train --resume runs/x", "config.yaml", files={"runs/x/a.txt": "a"})
    yield bad("damaged config.yaml", "another setting", "train --resume runs/x beta=3", "beta is 3", "new run",
              files=run_files())  # fmt: skip
    for name, line in {
        "embedder": "embedder-report --embedder m --device cpu --out out",
        "scorer": "scorer-ranges --preference m --device cpu",
        "CLAP": "embedder-report --embedder clap:m --device cpu --out out",
        "merge": "merge --a base --b m --out out",
        "evaluate": "evaluate --model m --device=cpu --out p.jsonl",
        "train": "train --beta 0 --name x model.name=m",
    }.items():
        for what, files in {
            "an empty folder": {"m/": ""},
            "deep JSON": {"m/config.json": DEEP, "m/model.safetensors": save({"a": torch.zeros(1)})},
            "a git-lfs pointer": {"m/config.json": CONFIG, "m/model.safetensors": POINTER},
        }.items():
            yield bad("foreign or hostile model", f"{what}: {name}", line, "m", files=files)
    sample = SAMPLE.replace("--model m", "--model base")
    yield bad("damaged cache", "a cut compiled loop", sample, "damaged", files={"../cache": library_cache}, status=0)
    yield bad("damaged cache", "a file in the way", sample, files={"../cache": "a"}, status=0)
    yield bad("hostile page", "names that are HTML", "report --points p.jsonl --out out --only fronts", "&lt;script&gt;",
              files={"p.jsonl": hostile_points}, status=0, absent=("<script>alert",))  # fmt: skip
