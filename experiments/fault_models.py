"""Bad inputs: folders of models."""

# ruff: noqa: E501 (a bad input and its facts are one line)
from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save, save_file

from experiments.fault_attempt import CODE, ROOT, Content, bad
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
    "a missing tensor": (tensors(WEIGHTS, lambda stored: stored.popitem()), ("m", "lacks 1 weight")),
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


def faults() -> Iterator[Fault]:
    """Yields the bad folders of models."""
    for name, (files, facts) in FOREIGN.items():
        files = {f"m/{file}": content for file, content in files.items()} or {"m/": ""}
        yield bad("foreign or hostile model", name, SAMPLE, "'m", *facts, files=files, lines=LINES)
    for name, (change, facts) in DAMAGED.items():
        yield bad("damaged model", name, SAMPLE, *facts, files={"m": base(change)}, lines=LINES)
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
