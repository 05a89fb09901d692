from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qd.models.checkpoints.resolver import checkpoint_problems

# Has the arguments of mergekit-pytorch: a YAML file, an output folder, options.
STAND_IN = """#!{python}
import sys, yaml
from pathlib import Path
from safetensors.torch import load_file, save_file
config, out = yaml.safe_load(open(sys.argv[1])), Path(sys.argv[2])
models = [(load_file(m["model"]), m["parameters"]["weight"]) for m in config["models"]]
out.mkdir()
merged = {{name: sum(w * model[name] for model, w in models) for name in models[0][0]}}
save_file(merged, out / "model.safetensors")
"""


@pytest.fixture
def script(monkeypatch):
    """The experiment as a module, with models of a few thousand numbers."""
    path = Path(__file__).resolve().parents[2] / "experiments" / "merge_benchmark.py"
    spec = importlib.util.spec_from_file_location("merge_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "merge_benchmark", module)
    spec.loader.exec_module(module)
    for name, value in {"WIDTH": 8, "FFN": 16, "TEXT_WIDTH": 4, "TOKENS": 16}.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_the_models_are_complete_siblings(script, tmp_path):
    tensors = script.shapes(2)
    for seed, name in enumerate("ab", start=1):
        script.write_checkpoint(tmp_path / name, tensors, seed)
        assert checkpoint_problems(tmp_path / name) == []
    a, b = (load_file(tmp_path / name / script.FILE) for name in "ab")
    assert {name: tuple(tensor.shape) for name, tensor in a.items()} == tensors
    assert [name for name in a if torch.equal(a[name], b[name])] == ["text_encoder.shared.weight"]


def test_differences_between_merges_are_measured(script, tmp_path):
    vectors = {"a": torch.zeros(10), "b": torch.zeros(10), "c": torch.zeros(11)}
    vectors["b"][3] = -0.5
    for name, vector in vectors.items():
        (tmp_path / name).mkdir()
        save_file({"x": vector}, tmp_path / name / script.FILE)
    assert script.difference(tmp_path / "a", tmp_path / "b") == (0.1, 0.5)
    with pytest.raises(SystemExit, match="same tensors"):
        script.difference(tmp_path / "a", tmp_path / "c")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_time_and_memory_are_those_of_the_process(script):
    hold = "import time; held = bytearray(b'1') * {mib} * 2**20; time.sleep(0.3)"
    small, large = (script.measure([sys.executable, "-c", hold.format(mib=mib)], {}) for mib in (10, 110))
    assert 80 < large.resident_mib - small.resident_mib < 120
    assert 80 < large.own_mib - small.own_mib < 120
    assert 0.3 < small.seconds < 60 and 0 < small.processor_seconds < small.seconds
    with pytest.raises(SystemExit, match="status 3:\nno luck"):
        script.measure([sys.executable, "-c", "import sys; print('no luck'); sys.exit(3)"], {})


@pytest.mark.slow
def test_it_prints_a_table(script, tmp_path, capsys):
    stand_in = tmp_path / "mergekit-pytorch"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    script.main(["--mergekit", str(stand_in), "--layers", "1", "--rounds", "2", "--lam", "0.5"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| qd merge", "| mergekit-pytorch"]
    assert all(line.endswith("| 0.00%, 0.0e+00 |") for line in lines[2:4])


def test_a_missing_program_is_reported(script):
    with pytest.raises(SystemExit, match="no-such-program is not installed"):
        script.main(["--mergekit", "no-such-program"])
