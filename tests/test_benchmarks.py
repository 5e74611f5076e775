"""Claims about the benchmarks: what they ask for, what they work out, and that our own contestants do equal work."""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import environments, workloads
from benchmarks.against import main as compare
from benchmarks.contestants import CONTESTANTS
from benchmarks.contestants.common import MARK, Run, add_sizes, asked, sized
from benchmarks.contestants.nvflare_log import round_times
from benchmarks.contestants.other_layouts import haiku_lstm, layers, lstm_layers
from benchmarks.processes import run
from benchmarks.profile import PHASES, phase_of
from benchmarks.report import Report, markdown, notes
from benchmarks.workloads import WORKLOADS, Workload, load, load_weights, prepare

ROOT = Path(__file__).parents[1]
TINY = {
    "A": {"clients": 6, "rows": 10, "cohort": 3},
    # Enough rows for all 62 classes to occur.
    "B": {"clients": 10, "rows": 40, "cohort": 3},
    "C": {"clients": 40, "rows": 20, "cohort": 20},
    "D": {"clients": 10, "rows": 20, "cohort": 5},
    "E": {"clients": 6, "rows": 4, "cohort": 3},
}
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc to read")


def tiny(letter: str) -> Workload:
    return replace(WORKLOADS[letter], **TINY[letter])


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("workloads")
    for letter in WORKLOADS:
        prepare(tiny(letter), folder)
    return folder


def a_run(
    label: str, repeat: int, rounds: list[float], loss_after: float = 0.5, **more: Any
) -> dict[str, Any]:
    return {
        "label": label,
        "repeat": repeat,
        "seconds": 9.0,
        "rounds": rounds,
        "start_up": 1.0,
        "peak_pss_bytes": 500_000_000,
        "processes": 2,
        "cores_used": 1.5,
        "outside_load": 0.0,
        "loss_before": 0.7,
        "loss_after": loss_after,
        **more,
    }


def a_report(*runs: dict[str, Any], **absent: str) -> Report:
    labels = dict.fromkeys(run["label"] for run in runs)
    return Report(
        {
            "workload": {**vars(WORKLOADS["C"]), "steps": WORKLOADS["C"].steps},
            "machine": {"cores": 2, "processor": "a processor", "memory_GiB": 4},
            "device": "cpu",
            "date": "2026-01-01 00:00",
            "rounds": 5,
            "contestants": {
                label: {"name": "fedpact" if label == "Fedpact" else "pfl", "versions": {label: "1"}}
                for label in labels
            },
            "absent": absent,
            "runs": list(runs),
        }
    )


def test_a_command_line_says_all_that_a_contestant_is_to_do() -> None:
    wanted = Run(tiny("D"), 3, 2, Path("/somewhere"), engine="batched", precision="bf16", device="cuda")
    assert asked(wanted.arguments()) == wanted


def test_sizes_that_are_not_asked_for_are_the_workloads_own() -> None:
    parser = argparse.ArgumentParser()
    add_sizes(parser)
    workload = sized("C", parser.parse_args(["--cohort", "7"]))
    assert workload == replace(WORKLOADS["C"], cohort=7)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--workload", "Z"], 'there is no workload "Z"; known: A, B, C, D, E, or all'),
        (["--workload", "A", "--against", "sherpa"], 'there is no peer "sherpa"; known: floor, stacked'),
        (["--workload", "A", "--against", "fedpact"], 'there is no peer "fedpact"'),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        compare(words)
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_every_contestant_has_a_script_and_every_peer_a_recipe() -> None:
    scripts = ROOT / "benchmarks" / "contestants"
    assert all((scripts / f"{name}.py").exists() for name in CONTESTANTS)
    assert {name for name, c in CONTESTANTS.items() if c.package} == set(environments.recipes())


def test_a_peer_that_needs_another_python_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    recipe = environments.Recipe([], only_python="2.7")
    with pytest.raises(environments.UnavailableError, match=r"runs on Python 2\.7 alone.* install one"):
        environments._interpreter(CONTESTANTS["tff"], recipe)


def test_ratio_is_taken_within_each_turn_and_warm_up_is_not_timed() -> None:
    report = a_report(
        a_run("Fedpact", 0, [9.0, 9.0, 1.0, 2.0, 3.0]),
        a_run("pfl", 0, [9.0, 9.0, 6.0, 6.0, 6.0]),
        a_run("Fedpact", 1, [9.0, 9.0, 4.0, 4.0, 4.0]),
        a_run("pfl", 1, [9.0, 9.0, 8.0, 8.0, 8.0]),
        a_run("Fedpact", 2, [9.0, 9.0, 1.0, 1.0, 1.0]),
        a_run("pfl", 2, [9.0, 9.0, 5.0, 5.0, 5.0]),
    )
    ours, theirs = report.lines
    # Medians of the timed rounds: ours 2, 4, 1 and theirs 6, 8, 5; turn by turn 3, 2 and 5 times ours.
    assert (ours.seconds.middle, ours.seconds.least, ours.seconds.most) == (2, 1, 4)
    assert theirs.seconds.middle == 6
    assert theirs.ratio is not None
    assert (theirs.ratio.middle, theirs.ratio.least, theirs.ratio.most) == (3, 2, 5)
    assert ours.ratio is None


def test_contestants_that_reach_the_same_loss_are_said_to() -> None:
    report = a_report(a_run("Fedpact", 0, [1.0] * 5, 0.500), a_run("pfl", 0, [1.0] * 5, 0.508))
    assert report.losses() == [
        "All start from the loss 0.7000, within 0.001.",
        # A tenth of what training gained, 0.196.
        "All after 5 rounds reach the loss 0.5040, within 0.02.",
    ]


@pytest.mark.parametrize("loss", [0.6, float("nan")])
def test_contestant_that_ends_elsewhere_is_named(loss: float) -> None:
    report = a_report(
        a_run("Fedpact", 0, [1.0] * 5), a_run("pfl", 0, [1.0] * 5), a_run("FedJAX", 0, [1.0] * 5, loss)
    )
    assert report.losses()[1].startswith("NOT all after 5 rounds reach the same loss")
    assert f"FedJAX {loss:.4f}" in report.losses()[1]


def test_contestants_that_failed_or_are_not_there_are_named_with_the_reason() -> None:
    failed = {"label": "pfl", "repeat": 0, "seconds": 1.0, "failure": "exit status 1: out of luck"}
    report = a_report(a_run("Fedpact", 0, [1.0] * 5), failed, Flower="cannot be installed")
    assert [line.label for line in report.lines] == ["Fedpact"]
    assert notes(report)[-2:] == ["Flower: cannot be installed", "pfl: exit status 1: out of luck"]
    assert not report.complete


def test_runs_beside_which_others_kept_the_machine_busy_are_marked() -> None:
    report = a_report(a_run("Fedpact", 0, [1.0] * 5), a_run("pfl", 0, [1.0] * 5, outside_load=0.3))
    table = markdown(report)
    assert "| pfl | 1* |" in table
    assert "| Fedpact | 1 |" in table
    assert "\n- \\* In a run of these, others kept" in table


def test_markdown_has_a_row_of_as_many_cells_for_every_contestant() -> None:
    report = a_report(a_run("Fedpact", 0, [1.0] * 5), a_run("pfl", 0, [1.0] * 5))
    rows = [line for line in markdown(report).splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert len({row.count("|") for row in rows}) == 1


def test_data_are_the_same_bits_wherever_they_are_made(tmp_path: Path, data: Path) -> None:
    for letter in WORKLOADS:
        prepare(tiny(letter), tmp_path)
        for first, second in zip(load(tiny(letter), data), load(tiny(letter), tmp_path), strict=True):
            assert np.array_equal(first, second)
        first, second = load_weights(tiny(letter), data), load_weights(tiny(letter), tmp_path)
        assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_file_that_could_not_be_written_whole_is_not_there(tmp_path: Path) -> None:
    def breaks(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        workloads._save(tmp_path / "x.npy", breaks)
    assert list(tmp_path.iterdir()) == []


def test_models_have_the_parameters_that_their_descriptions_say(data: Path) -> None:
    for letter in "ABCD":
        (said,) = re.findall(r"([\d,]+) parameters", WORKLOADS[letter].model)
        counted = sum(array.size for array in load_weights(tiny(letter), data).values())
        assert counted == int(said.replace(",", ""))


def test_dense_layer_behind_convolutions_reads_the_same_image_with_its_channels_last(data: Path) -> None:
    torch = pytest.importorskip("torch")
    weights = load_weights(tiny("A"), data)
    kernel, bias = layers(tiny("A"), weights)[2]
    image = np.random.default_rng(0).standard_normal((64, 14, 14)).astype(np.float32)
    names = [name for name in weights if name.endswith("weight")]
    first_dense = torch.from_numpy(weights[names[2]]) @ torch.from_numpy(image).flatten()
    assert np.allclose(image.transpose(1, 2, 0).reshape(-1) @ kernel, first_dense, atol=1e-4)
    assert len(bias) == kernel.shape[1] == 128


def test_convolution_in_the_other_layout_is_torchs(data: Path) -> None:
    torch = pytest.importorskip("torch")
    weights = load_weights(tiny("A"), data)
    kernel, _ = layers(tiny("A"), weights)[0]
    patch = np.random.default_rng(0).standard_normal((3, 3, 3)).astype(np.float32)
    names = [name for name in weights if name.endswith("weight")]
    convolved = torch.nn.functional.conv2d(torch.from_numpy(patch)[None], torch.from_numpy(weights[names[0]]))
    by_hand = np.einsum("hwi,hwio->o", patch.transpose(1, 2, 0), kernel)
    assert np.allclose(by_hand, convolved.flatten(), atol=1e-5)


def test_lstm_in_haikus_layout_takes_torchs_step(data: Path) -> None:
    torch = pytest.importorskip("torch")
    weights = load_weights(tiny("E"), data)
    kernel, bias = haiku_lstm(*lstm_layers(weights)[0])
    cell = torch.nn.LSTM(8, 256, batch_first=True)
    cell.load_state_dict(
        {
            name[5:]: torch.from_numpy(array)
            for name, array in weights.items()
            if name.startswith("lstm.") and "l0" in name
        }
    )
    random = np.random.default_rng(0)
    x, hidden, memory = (random.standard_normal(size).astype(np.float32) for size in (8, 256, 256))
    # Haiku's step: gates i, g, f, o of one product, and 1 added to the forget gate's score.
    i, g, f, o = np.split(np.concatenate([x, hidden]) @ kernel + bias, 4)
    new_memory = _sigmoid(f + 1) * memory + _sigmoid(i) * np.tanh(g)
    state = tuple(torch.from_numpy(part)[None] for part in (hidden, memory))
    _, (_, torchs) = cell(torch.from_numpy(x)[None], state)
    assert np.allclose(new_memory, torchs.detach()[0], atol=1e-5)
    assert len(o) == 256


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize(
    ("letter", "name"),
    [
        ("B", "fedpact"),
        *((letter, name) for letter in "CDE" for name in ("fedpact", "floor", "naive")),
        *((letter, "stacked") for letter in CONTESTANTS["stacked"].workloads),
    ],
)
def test_our_contestants_do_equal_work(
    letter: str, name: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    from benchmarks.torch_models import loss, mean_loss, model, tensors

    # With all clients in the cohort and all rows in one batch there is nothing left to draw.
    workload = replace(tiny(letter), cohort=tiny(letter).clients, batch_size=tiny(letter).rows)
    threads = torch.get_num_threads()
    try:
        script = importlib.import_module(f"benchmarks.contestants.{name}")
        script.main(Run(workload, 2, 1, data, engine="in_process"))
    finally:
        torch.set_num_threads(threads)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(MARK)]
    told = json.loads(line.removeprefix(MARK))
    # The same, written out.
    x, y = tensors(workload, data)
    held = model(workload, data)
    weights = {key: value.clone() for key, value in held.state_dict().items()}
    for _ in range(2):
        mean = {key: torch.zeros_like(value) for key, value in weights.items()}
        for client in range(workload.clients):
            held.load_state_dict(weights)
            held.zero_grad()
            loss(workload, held(x[client]), y[client]).backward()
            for key, parameter in held.named_parameters():
                mean[key] += (parameter.detach() - workload.lr * parameter.grad) / workload.clients
        weights = mean
    assert len(told["ticks"]) == 3
    assert told["loss_before"] == pytest.approx(mean_loss(workload, data), rel=1e-5)
    assert told["loss_after"] == pytest.approx(mean_loss(workload, data, weights), rel=1e-4)


@needs_proc
def test_comparison_writes_its_figures_a_picture_and_says_that_the_losses_agree(
    tmp_path: Path, data: Path
) -> None:
    pytest.importorskip("matplotlib")
    options = {
        "workload": "C",
        "against": "floor",
        "engine": "in_process",
        "repeats": 1,
        "rounds": 1,
        "workers": 1,
        "idle-wait": 0,
        "data": data,
        "out": tmp_path,
        **TINY["C"],
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("C-*.json")
    report = Report(json.loads(path.read_text()))
    assert [line.label for line in report.lines] == ["Fedpact in_process", "floor"]
    assert all(line.peak_pss_bytes for line in report.lines)
    assert report.losses()[0].startswith("All start from the loss")
    assert path.with_suffix(".png").stat().st_size > 0


@needs_proc
def test_what_a_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    ran = run(["sh", "-c", "sleep 60 & echo $!"], dict(os.environ), tmp_path, tmp_path / "log", limit_s=30)
    left_behind = int(ran.output)
    status = Path(f"/proc/{left_behind}/stat")
    # Nobody may have reaped it yet.
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"
    assert ran.code == 0


@needs_proc
def test_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    ran = run(["sleep", "60"], dict(os.environ), tmp_path, tmp_path / "log", limit_s=0.2)
    assert ran.timed_out
    assert ran.seconds < 30


def test_round_times_of_a_server_that_writes_below_the_time_are_read() -> None:
    log = """2026-01-01 10:00:00,500 - INFO -
------------------
  Round 0 started.
2026-01-01 10:00:02,000 - INFO - Aggregated 2/2 results
2026-01-01 10:00:02,500 - INFO -
  Round 1 started.
2026-01-01 10:00:05,000 - INFO -
  Finished FedAvg.
"""
    first, second, end = round_times(log)
    assert (second - first, end - second) == (2.0, 2.5)


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_of_the_profile_is_some_modules_work(phase: str) -> None:
    package = ROOT / "src"
    modules = [".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")]
    function = "server" if phase == "server" else "anything"
    assert phase in {phase_of(module, function) for module in modules}


def test_code_that_is_not_fedpacts_works_for_its_caller() -> None:
    assert phase_of("torch.nn.modules.linear", "forward") is None
    assert phase_of("fedpact.core.vector", "plus") is None
