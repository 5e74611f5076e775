"""What the pages on private training and on compression were measured with."""

import re
from pathlib import Path

import pytest

from fedpact.privacy.accounting import account
from fedpact.privacy.events import Gaussian, Poisson, Release
from fedpact.privacy.solve import solve

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from benchmarks import compression, private_flamby, private_images

DOCS = Path(__file__).parents[1] / "docs"


def test_noise_by_the_server_is_what_a_plan_of_poisson_cohorts_finds() -> None:
    pytest.importorskip("dp_accounting")
    plan = solve(clients=1000, cohort=200, rounds=60, epsilon=2.0, sampling="poisson")
    assert private_images.noise_of("central", 2.0) == pytest.approx(plan.noise_multiplier, rel=1e-3)


def test_against_the_server_nothing_is_gained_by_sampling() -> None:
    # √60 of one release's noise, for nobody is hidden by not being asked.
    plan = solve(clients=1000, rounds=60, epsilon=2.0, sampling="all", accountant="rdp")
    assert private_images.noise_of("distributed", 2.0) == pytest.approx(plan.noise_multiplier, rel=1e-3)


def test_noise_for_fifteen_epochs_is_spent_by_the_steps_that_are_taken() -> None:
    pytest.importorskip("dp_accounting")
    cleveland = private_flamby.counted(1.0)[0]
    # 50 batches an epoch: 1,500 steps are 30 epochs in the place of 15, which cost less than twice as much.
    assert 1.3 < cleveland < 2.0
    noise = 1.925  # with which 750 steps cost 1
    spent = account([Release(Gaussian(noise), Poisson(0.02), 1500)], private_flamby.DELTA).epsilon
    assert cleveland == pytest.approx(spent, rel=0.01)


def test_every_channel_that_is_compared_stands_in_the_table() -> None:
    page = (DOCS / "compression.md").read_text(encoding="utf-8")
    labels = [
        " → ".join(map(compression.written, channel)) or "nothing" for channel in compression.channels()
    ]
    assert re.findall(r"^\| `(.*?)` \|", page, re.MULTILINE) == labels
    assert len(set(labels)) == len(labels)


def test_a_picture_has_a_row_for_each_channel_and_the_same_bytes_twice(tmp_path: Path) -> None:
    lines = [
        compression.Line("nothing", True, 2e8, 2e8, (0.83,)),
        compression.Line("TopK(fraction=0.01)", False, 4e6, 2e8, (0.79,)),
    ]
    paths = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for path in paths:
        compression.draw(lines, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert "TopK(fraction=0.01)" in paths[0].read_text(encoding="utf-8")
