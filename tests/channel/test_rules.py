"""The order of a channel's stages: what may stand before what, and what is said of the rest."""

from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import pytest

from fedpact.algorithms.fedavg import FedAvg
from fedpact.channel.adaptive_clip import AdaptiveClip
from fedpact.channel.cast import Cast
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.noise import GaussianNoise
from fedpact.channel.quantize import Quantize
from fedpact.channel.random_k import RandomK
from fedpact.channel.rules import KINDS, check_order, refusal, table
from fedpact.channel.secure_sum import SecureSum
from fedpact.channel.transform import Kind, Transform
from fedpact.core.errors import ChannelError


@dataclass(frozen=True)
class Rounded(Transform):
    """A stage that changes only what goes down to the clients."""

    kind: ClassVar[Kind] = "download"


ONE_OF: dict[str, Any] = {
    "clip": Clip(1.0),
    "compress": RandomK(0.5),
    "pack": Cast("fp16"),
    "quantize": Quantize(8, range=0.1),
    "noise": GaussianNoise(1.0),
    "mask": SecureSum(),
    "download": Rounded(),
}
# The kinds that may stand behind each, read off what each leaves: updates, vectors that can be summed, an encoding of
# each client's own, integers, noisy integers, uniform noise. What changes the way down alone may stand anywhere, once.
MAY_FOLLOW: dict[str, set[str]] = {
    "clip": {"clip", "compress", "pack", "quantize", "noise", "mask", "download"},
    "compress": {"compress", "pack", "quantize", "noise", "mask", "download"},
    "pack": {"download"},
    "quantize": {"noise", "mask", "download"},
    "noise": {"mask", "download"},
    "mask": {"download"},
    "download": {"clip", "compress", "pack", "quantize", "noise", "mask"},
}


def test_every_kind_has_a_stage_here() -> None:
    assert set(KINDS) == set(get_args(Kind)) == set(ONE_OF) == set(MAY_FOLLOW)
    assert all(stage.kind == kind for kind, stage in ONE_OF.items())


@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", KINDS)
def test_a_pair_is_allowed_or_refused_with_what_to_do(before: Kind, after: Kind) -> None:
    pair = [ONE_OF[before], ONE_OF[after]]
    if after in MAY_FOLLOW[before]:
        check_order(pair)
        assert refusal(before, after) is None
        return
    first, second = (type(stage).__name__ for stage in pair)
    with pytest.raises(ChannelError, match=f"{second} cannot stand behind {first} in a channel: ") as caught:
        check_order(pair)
    what_to_do = str(caught.value).rsplit("; ", 1)[-1]
    assert what_to_do.startswith(("put ", "take ", "compress with ", "give "))
    assert "{" not in str(caught.value)


@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", KINDS)
def test_stages_in_between_change_nothing(before: Kind, after: Kind) -> None:
    if after in MAY_FOLLOW[before]:
        return
    between = [stage for kind, stage in ONE_OF.items() if kind in MAY_FOLLOW[before]][:1]
    with pytest.raises(ChannelError, match="cannot stand behind"):
        check_order([ONE_OF[before], *between, ONE_OF[after]])


def test_the_whole_order_is_allowed() -> None:
    stages = [Clip(1.0), RandomK(0.5), Quantize(8), GaussianNoise(1.0, where="distributed"), SecureSum()]
    assert Channel(stages, FedAvg(weighting="uniform")).stages == tuple(stages)
    assert Channel([], FedAvg()).stages == ()


def test_a_channel_is_refused_when_it_is_built() -> None:
    with pytest.raises(ChannelError, match=r"put Clip before SecureSum\.$"):
        Channel([SecureSum(), Clip(1.0)], FedAvg(weighting="uniform"))


def test_the_table_holds_every_pair_once() -> None:
    rows = list(table())
    assert [(before, after) for before, after, _ in rows] == [(a, b) for a in KINDS for b in KINDS]
    assert {(a, b) for a, b, why in rows if why is None} == {(a, b) for a in KINDS for b in MAY_FOLLOW[a]}
    assert all(why == refusal(before, after) for before, after, why in rows)


UNIFORM = FedAvg(weighting="uniform")


@pytest.mark.parametrize(
    ("stages", "algorithm", "sentence"),
    [
        ([SecureSum()], UNIFORM, r"must know how large a value can be: put Clip\(1\.0\) or Quantize\("),
        ([Quantize(8)], UNIFORM, r"write Quantize\(bits=8, range=0\.1\), or put Clip\(1\.0\) before it"),
        ([GaussianNoise(1.0)], UNIFORM, r"put a Clip before it, as in \[Clip\(1\.0\), GaussianNoise"),
        ([Quantize(8, range=1.0), GaussianNoise(1.0)], UNIFORM, "put a Clip before it"),
        ([Clip(1.0), SecureSum()], FedAvg(), r'max_weight=10000\), or set weighting="uniform" in FedAvg'),
        ([Clip(1.0), GaussianNoise(1.0)], FedAvg(), 'equal weight.* set weighting="uniform" in FedAvg'),
        (
            [Clip(1.0), GaussianNoise(1.0, where="distributed")],
            UNIFORM,
            r'put SecureSum\(\) behind it, or set where="local"',
        ),
        ([AdaptiveClip(), AdaptiveClip()], UNIFORM, "leave one of them out"),
    ],
)
def test_what_a_stage_needs_of_the_others_is_said(stages: Any, algorithm: Any, sentence: str) -> None:
    with pytest.raises(ChannelError, match=sentence):
        Channel(stages, algorithm)
