"""Accuracy against bytes on Fashion-MNIST, for every stage that makes updates smaller.

python -m benchmarks.compression [--picture docs/compression.svg] [--rounds 30] [--seeds 1]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import fedpact as fp
from benchmarks.fashion import accuracy, dealt
from benchmarks.svg import save

if TYPE_CHECKING:
    import torch

    from fedpact.channel.transform import Transform

CLIENTS, ALPHA, COHORT = 100, 0.5, 20
# What every label says, and what none does, since all channels have it alike.
_SAID, _UNSAID = ("bits", "levels", "rank", "dtype"), ("range", "outside")


@dataclass(frozen=True)
class Line:
    """What a channel gave.

    Args:
        label: the channel, as it is written.
        masked: whether it may stand before a SecureSum, or does.
        upload_bytes: of all clients in all rounds, together;
        download_bytes: and to them.
        accuracies: one for each seed.
    """

    label: str
    masked: bool
    upload_bytes: float
    download_bytes: float
    accuracies: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.accuracies))


def channels() -> list[list[Transform]]:
    """Return the channels that are compared."""
    # Of a value that is rotated hardly any is beyond this; of one that is not, some are.
    quantized = {"range": 0.05, "outside": "clip"}
    return [
        [],
        [fp.Lossless()],
        [fp.Cast()],
        [fp.RandomK(fraction=0.1)],
        [fp.RandomK(fraction=0.01)],
        [fp.Projection(fraction=0.1)],
        [fp.Projection(fraction=0.01)],
        [fp.PowerSGD(rank=2)],
        [fp.PowerSGD(rank=8)],
        [fp.CountSketch(rows=5, columns=1600, top_k=800)],
        *([fp.Quantize(bits=bits, **quantized)] for bits in (8, 4, 2)),
        *([fp.Hadamard(), fp.Quantize(bits=bits, **quantized)] for bits in (8, 4, 2)),
        [fp.RandomK(fraction=0.1), fp.Quantize(bits=4, **quantized)],
        [fp.Hadamard(), fp.Quantize(bits=4, **quantized), fp.SecureSum(bits=16)],
        [fp.Projection(fraction=0.1), fp.Quantize(bits=4, **quantized), fp.SecureSum(bits=16)],
        [fp.Prune(sparsity=0.9, end=20)],
        [fp.SendQuantized(bits=8)],
        [fp.SendQuantized(bits=4), fp.Hadamard(), fp.Quantize(bits=4, **quantized)],
        [fp.TopK(fraction=0.1)],
        [fp.TopK(fraction=0.01)],
        [fp.TopK(fraction=0.01, error_feedback=False)],
        [fp.SignSGD(step=0.003)],
        [fp.EFSignSGD()],
        [fp.TernGrad()],
        [fp.QSGD(levels=1)],
        [fp.QSGD(levels=7)],
        [fp.Drive()],
        *([fp.Eden(bits=bits)] for bits in (1, 2, 4)),
    ]


def measure(channel: Sequence[Transform], rounds: int, seeds: int) -> Line:
    """Train through a channel, once for each seed."""
    results = [
        fp.train(
            _perceptron(seed),
            dealt(CLIENTS, ALPHA),
            algorithm=fp.FedAvg(lr=0.1, local_epochs=1, batch_size=20, weighting="uniform"),
            channel=list(channel),
            cohort=COHORT,
            rounds=rounds,
            evaluate_every=0,
            seed=seed,
            engine="in_process",
            progress=False,
        )
        for seed in range(seeds)
    ]
    return Line(
        " → ".join(map(written, channel)) or "nothing",
        all(stage.kind != "pack" for stage in channel),
        float(np.mean([result.upload_bytes for result in results])),
        float(np.mean([result.download_bytes for result in results])),
        tuple(map(accuracy, results)),
    )


def _perceptron(seed: int) -> torch.nn.Module:
    import torch
    from torch import nn

    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))


def written(stage: Any) -> str:
    """Return a stage as it is written, with what makes it another than the rest."""
    given = {field.name: getattr(stage, field.name) for field in fields(stage) if field.name not in _UNSAID}
    usual = {field.name: None if field.default is MISSING else field.default for field in fields(stage)}
    said = [f"{name}={value!r}" for name, value in given.items() if name in _SAID or value != usual[name]]
    return f"{type(stage).__name__}({', '.join(said)})"


def draw(lines: Sequence[Line], path: Path) -> None:
    """Draw a row for each channel, the shortest at the top: its bytes, and its accuracy."""
    from matplotlib.figure import Figure

    rows = sorted(lines, key=lambda line: -line.upload_bytes)
    figure = Figure(figsize=(9.5, 0.24 * len(rows) + 0.9), layout="constrained")
    sizes, scores = figure.subplots(1, 2, sharey=True, width_ratios=(2, 3))
    for masked, colour, label in ((True, "#00796b", "may be masked"), (False, "#e65100", "in clear alone")):
        places = [place for place, line in enumerate(rows) if line.masked == masked]
        sizes.plot(
            [rows[place].upload_bytes / 1e6 for place in places], places, "o", color=colour, label=label
        )
        scores.plot([rows[place].accuracy for place in places], places, "o", color=colour)
    sizes.set_yticks(range(len(rows)), [line.label for line in rows], fontsize=7)
    sizes.set_xscale("log")
    sizes.xaxis.set_major_formatter("{x:g}")
    sizes.set_xlabel("uploaded by all clients in all rounds, MB")
    scores.set_xlabel("accuracy on images held out")
    scores.axvline(lines[0].accuracy, color="#607d8b", linewidth=1)
    for axes in (sizes, scores):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    save(figure, path)


def main(words: Sequence[str]) -> int:
    """Measure all channels, print the table as Markdown, and draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1, help="runs of each, of which the mean is taken")
    parser.add_argument("--picture", type=Path, help="where to draw accuracy over bytes, SVG or PNG")
    arguments = parser.parse_args(words)
    print("| channel | up, MB | of all | down, MB | accuracy | masks |\n|---|---:|---:|---:|---:|---|")
    lines: list[Line] = []
    for channel in channels():
        line = measure(channel, arguments.rounds, arguments.seeds)
        lines.append(line)
        share = line.upload_bytes / lines[0].upload_bytes
        masked = "yes" if line.masked else "no"
        sizes = f"{line.upload_bytes / 1e6:.3g} | {share:.1%} | {line.download_bytes / 1e6:.3g}"
        print(f"| `{line.label}` | {sizes} | {line.accuracy:.3f} | {masked} |", flush=True)
    if arguments.picture:
        draw(lines, arguments.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
