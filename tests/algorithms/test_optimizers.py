import dataclasses
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.algorithms.optimizers import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    EMAMomentum,
    Optimizer,
    RMSprop,
    Yogi,
    init_slots,
)
from fedpact.core.errors import ConfigError

EVERY_OPTIMIZER: list[Optimizer] = [
    SGD(),
    SGD(momentum=0.9, dampening=0.1, weight_decay=0.01),
    SGD(momentum=0.9, nesterov=True),
    EMAMomentum(),
    Adam(weight_decay=0.01),
    Adam(bias_correction=False, initial_accumulator=1e-4),
    AdamW(),
    Yogi(),
    Yogi(bias_correction=True),
    Adagrad(weight_decay=0.01, lr_decay=0.1),
    RMSprop(weight_decay=0.01),
    RMSprop(momentum=0.9, centered=True),
]
every_optimizer = pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER, ids=repr)
libraries = pytest.mark.parametrize("library", ["numpy", "torch"])
precisions = pytest.mark.parametrize("dtype", ["float64", "float32"])

# What rounding adds up to over 100 steps of the same rule, its operations taken in another order.
RELATIVE = {"float64": 1e-12, "float32": 1e-5}


def make(library: str, values: Any, dtype: str = "float64") -> Any:
    array = np.array(values, dtype)
    return array if library == "numpy" else pytest.importorskip("torch").from_numpy(array)


def descend(optimizer: Optimizer, start: Any, gradients: Any, lr: float = 0.01) -> np.ndarray:
    """Return the weights after a step along each of the gradients."""
    weights = start * 1
    slots = init_slots(optimizer, weights)
    for count, gradient in enumerate(gradients, start=1):
        optimizer.step(weights, gradient * 1, slots, count, lr)
    return np.asarray(weights)


def random_problem(seed: int, dtype: str, shape: tuple[int, ...] = (7,), steps: int = 100) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    scale = 10.0 ** generator.uniform(-2, 1, shape)
    start = generator.normal(size=shape).astype(dtype)
    return start, (scale * generator.normal(size=(steps, *shape))).astype(dtype)


def torch_descend(name: str, start: np.ndarray, gradients: np.ndarray, **options: Any) -> np.ndarray:
    torch = pytest.importorskip("torch")
    weights = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = getattr(torch.optim, name)([weights], **options)
    for gradient in gradients:
        weights.grad = torch.from_numpy(gradient)
        optimizer.step()
    return np.asarray(weights.detach())


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# Each strategy draws one of our optimisers and torch's options for the same one.
fractions = st.floats(0, 0.99)
# With a shorter memory of g² a step is g / |g|: its sign, and where g is about 0, the sign of its rounding.
memories = st.floats(0.8, 0.999)
decays = st.sampled_from([0.0, 1e-4, 0.1])
tiny = st.floats(-10, -2).map(lambda exponent: 10.0**exponent)
positive_starts = st.sampled_from([0.0, 0.1])
Pair = tuple[Optimizer, dict[str, Any]]


@st.composite
def sgds(draw: st.DrawFn) -> Pair:
    momentum = draw(fractions)
    nesterov = draw(st.booleans()) and momentum > 0
    dampening = draw(fractions) if momentum > 0 and not nesterov else 0.0
    optimizer = SGD(momentum, dampening, nesterov, draw(decays))
    return optimizer, dataclasses.asdict(optimizer)


@st.composite
def adams(draw: st.DrawFn, kind: type[Adam]) -> Pair:
    betas = draw(fractions), draw(memories)
    options = {"betas": betas, "eps": draw(tiny), "weight_decay": draw(decays)}
    return kind(**options), options


@st.composite
def adagrads(draw: st.DrawFn) -> Pair:
    options = {"eps": draw(tiny), "weight_decay": draw(decays), "lr_decay": draw(decays)}
    start = draw(positive_starts)
    return Adagrad(**options, initial_accumulator=start), options | {"initial_accumulator_value": start}


@st.composite
def rmsprops(draw: st.DrawFn) -> Pair:
    optimizer = RMSprop(draw(memories), draw(tiny), draw(decays), draw(fractions), draw(st.booleans()))
    return optimizer, dataclasses.asdict(optimizer)


PAIRS: dict[str, Callable[[], st.SearchStrategy[Pair]]] = {
    "SGD": sgds,
    "Adam": lambda: adams(Adam),
    "AdamW": lambda: adams(AdamW),
    "Adagrad": adagrads,
    "RMSprop": rmsprops,
}


@libraries
@precisions
@pytest.mark.parametrize("name", PAIRS)
def test_a_hundred_steps_equal_torch_optim(name: str, dtype: str, library: str) -> None:
    @settings(max_examples=5, deadline=None)
    @given(PAIRS[name](), st.integers(0, 2**32), st.floats(1e-4, 0.1))
    def check(pair: Pair, seed: int, lr: float) -> None:
        optimizer, options = pair
        start, gradients = random_problem(seed, dtype)
        ours = descend(optimizer, make(library, start, dtype), make(library, gradients, dtype), lr)
        assert ours.dtype == dtype
        assert distance(ours, torch_descend(name, start, gradients, lr=lr, **options)) < RELATIVE[dtype]

    check()


# From [1, 2, 3] with the gradient g = [.1, .2, .3], then 2·g, at lr = .01; in units of g:
#   SGD            steps by .01, .02
#   momentum .9    b = 1, .9 + 2 = 2.9
#   nesterov .9    1 + .9 = 1.9, 2 + .9·2.9 = 4.61
#   EMA .9         m = .1, .09 + .2 = .29
#   Adam .9, .99   m = .1, .29 and v = .01, .0099 + .04 = .0499, over 1 − βᵗ = .1, .19 and .01, .0199:
#                  1 / √1 = 1 and (.29/.19) / √(.0499/.0199) = .963875
@libraries
@pytest.mark.parametrize(
    ("optimizer", "first", "second"),
    [
        (SGD(), [0.999, 1.998, 2.997], [0.997, 1.994, 2.991]),
        (SGD(momentum=0.9), [0.999, 1.998, 2.997], [0.9961, 1.9922, 2.9883]),
        (SGD(momentum=0.9, nesterov=True), [0.9981, 1.9962, 2.9943], [0.99349, 1.98698, 2.98047]),
        (EMAMomentum(beta=0.9), [0.9999, 1.9998, 2.9997], [0.99961, 1.99922, 2.99883]),
        (Adam(betas=(0.9, 0.99)), [0.99, 1.99, 2.99], [0.98036125, 1.98036125, 2.98036125]),
    ],
    ids=repr,
)
def test_two_steps_equal_a_hand_calculation(
    optimizer: Optimizer, first: list[float], second: list[float], library: str
) -> None:
    start, gradient = make(library, [1.0, 2.0, 3.0]), make(library, [0.1, 0.2, 0.3])
    # Adam's eps of 1e-8 is not in the hand calculation; at these gradients it moves a weight by 1e-9.
    np.testing.assert_allclose(descend(optimizer, start, [gradient]), first, rtol=1e-8)
    np.testing.assert_allclose(descend(optimizer, start, [gradient, 2 * gradient]), second, rtol=1e-8)


# One weight from 1 with g = .1, .2, .01 at lr = .01: m = .01, .9·.01 + .1·.2 = .029, .9·.029 + .001 = .0271.
#   EMA      w = 1 − .0001 = .9999, − .00029 = .99961, − .000271 = .999339
#   FedYogi  from v = 1e-6, τ = 1e-3, β₂ = .99; v < g² twice, then v > g²:
#            v = 1e-6 + .01·.01 = 1.01e-4, + .01·.04 = 5.01e-4, − .01·.0001 = 5.00e-4
#            w −= .01·m / (√v + τ): .9049876e-2, 1.2402157e-2, 1.1600690e-2
#   FedAdam  v = .99·1e-6 + .01·.01 = 1.0099e-4, .99·1.0099e-4 + .01·.04 = 4.999801e-4, 4.959803e-4
#            w −= .01·m / (√v + τ): .9050283e-2, 1.2414259e-2, 1.1645588e-2
@libraries
@pytest.mark.parametrize(
    ("optimizer", "weights"),
    [
        (EMAMomentum(beta=0.9), [0.9999, 0.99961, 0.999339]),
        (Yogi(betas=(0.9, 0.99), eps=1e-3, initial_accumulator=1e-6), [0.99095012, 0.97854797, 0.96694728]),
        (
            Adam(betas=(0.9, 0.99), eps=1e-3, initial_accumulator=1e-6, bias_correction=False),
            [0.99094972, 0.97853546, 0.96688987],
        ),
    ],
    ids=["EMAMomentum", "FedYogi", "FedAdam"],
)
def test_three_steps_equal_a_hand_calculation(
    optimizer: Optimizer, weights: list[float], library: str
) -> None:
    gradients = make(library, [[0.1], [0.2], [0.01]])
    for steps, expected in enumerate(weights, start=1):
        found = descend(optimizer, make(library, [1.0]), gradients[:steps])
        np.testing.assert_allclose(found, [expected], rtol=1e-8)


def test_yogi_second_moment_falls_by_a_part_of_the_gradient_where_adam_forgets_a_part_of_itself() -> None:
    # v = 1 and g = .1: Yogi 1 − .01·.01 = .9999; Adam .99·1 + .01·.01 = .9901.
    for optimizer, expected in [
        (Yogi(betas=(0.9, 0.99), initial_accumulator=1.0), 0.9999),
        (Adam(betas=(0.9, 0.99), initial_accumulator=1.0), 0.9901),
    ]:
        weights = np.zeros(1)
        slots = init_slots(optimizer, weights)
        optimizer.step(weights, np.array([0.1]), slots, 1, 0.01)
        np.testing.assert_allclose(slots["second_moment"], [expected], rtol=1e-14)


@pytest.mark.parametrize("kind", [Adam, Yogi])
def test_a_bias_corrected_first_step_is_as_long_as_the_rate_whatever_the_gradient(kind: type[Adam]) -> None:
    optimizer = kind(eps=0.0, initial_accumulator=0.0, bias_correction=True)
    found = descend(optimizer, np.zeros(3), [np.array([1e-3, -1.0, 1e3])], lr=0.01)
    np.testing.assert_allclose(found, [-0.01, 0.01, -0.01], rtol=1e-12)


def test_ema_momentum_is_classical_momentum_at_a_smaller_rate() -> None:
    start, gradients = random_problem(1, "float64")
    averaged = descend(EMAMomentum(beta=0.8), start, gradients, lr=0.05)
    summed = descend(SGD(momentum=0.8), start, gradients, lr=0.05 * (1 - 0.8))
    assert distance(averaged, summed) < 1e-12


@every_optimizer
@precisions
def test_numpy_and_torch_take_the_same_steps(optimizer: Optimizer, dtype: str) -> None:
    start, gradients = random_problem(2, dtype)
    tensors = make("torch", start, dtype), make("torch", gradients, dtype)
    assert distance(descend(optimizer, *tensors), descend(optimizer, start, gradients)) < RELATIVE[dtype]


@every_optimizer
@libraries
def test_each_row_of_a_cohort_steps_as_it_would_alone(optimizer: Optimizer, library: str) -> None:
    start, gradients = random_problem(3, "float64", shape=(3, 7), steps=10)
    together = descend(optimizer, make(library, start), make(library, gradients))
    for row in range(3):
        alone = descend(optimizer, make(library, start[row]), make(library, gradients[:, row]))
        assert distance(together[row], alone) < 1e-15


@every_optimizer
@libraries
def test_a_step_is_taken_in_place_in_the_weights_own_precision(optimizer: Optimizer, library: str) -> None:
    weights, gradient = make(library, [1.0, 2.0], "float32"), make(library, [0.1, 0.2], "float32")
    slots = init_slots(optimizer, weights)
    kept = dict(slots)
    view = weights[:1]
    optimizer.step(weights, gradient, slots, 1, 0.01)
    assert view[0] == weights[0] != 1.0
    assert all(slots[name] is kept[name] and kept[name].dtype == weights.dtype for name in kept)


@every_optimizer
def test_the_slots_are_all_that_a_resumed_run_needs(optimizer: Optimizer) -> None:
    start, gradients = random_problem(4, "float64", steps=20)
    weights = start.copy()
    slots = init_slots(optimizer, weights)
    for count, gradient in enumerate(gradients, start=1):
        if count == 10:
            slots = {name: np.frombuffer(bytearray(array.tobytes())) for name, array in slots.items()}
        optimizer.step(weights, gradient.copy(), slots, count, 0.01)
    assert np.array_equal(weights, descend(optimizer, start, gradients))


@every_optimizer
def test_slots_start_from_their_constants_with_the_shape_and_dtype_of_the_weights(
    optimizer: Optimizer,
) -> None:
    weights = np.ones((2, 3), np.float32)
    slots = init_slots(optimizer, weights)
    assert slots.keys() == optimizer.slots().keys()
    for name, start in optimizer.slots().items():
        assert slots[name].dtype == np.float32
        assert np.array_equal(slots[name], np.full((2, 3), start, np.float32))


def test_plain_sgd_keeps_no_state() -> None:
    assert SGD(weight_decay=0.1).slots() == {}


@every_optimizer
def test_no_step_reads_a_value_back_from_the_device(optimizer: Optimizer) -> None:
    # A meta tensor has a device and no values: whatever asked for one would fail.
    torch = pytest.importorskip("torch")
    weights, gradient = torch.empty(2, 3, device="meta"), torch.empty(2, 3, device="meta")
    slots = init_slots(optimizer, weights)
    for count in (1, 2):
        optimizer.step(weights, gradient, slots, count, 0.01)
    assert all(slot.device.type == "meta" for slot in slots.values())


@precisions
def test_a_gpu_takes_the_same_steps(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    start, gradients = random_problem(5, dtype)
    for optimizer in EVERY_OPTIMIZER:
        weights = torch.from_numpy(start).cuda()
        slots = init_slots(optimizer, weights)
        for count, gradient in enumerate(torch.from_numpy(gradients).cuda(), start=1):
            optimizer.step(weights, gradient.clone(), slots, count, 0.01)
        assert distance(weights.cpu().numpy(), descend(optimizer, start, gradients)) < RELATIVE[dtype]


def test_parameters_that_require_gradients_step_under_no_grad() -> None:
    torch = pytest.importorskip("torch")
    weights = torch.nn.Parameter(torch.ones(3))
    for optimizer in EVERY_OPTIMIZER:
        with torch.no_grad():
            slots = init_slots(optimizer, weights)
            optimizer.step(weights, torch.ones(3), slots, 1, 0.01)
        assert not any(slot.requires_grad for slot in slots.values())


def test_centred_rmsprop_stays_finite_where_the_gradient_does_not_vary() -> None:
    gradients = np.full((3000, 4), [0.1, 0.3, 1.0, 7.7], np.float32)
    weights = descend(RMSprop(alpha=0.9, centered=True, eps=1e-3), np.zeros(4, np.float32), gradients)
    assert np.isfinite(weights).all()


def test_importing_the_optimizers_does_not_import_torch() -> None:
    code = "import sys, fedpact.algorithms.optimizers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_optimizer_has_one_way_to_be_written() -> None:
    hyper_parameters: Any = {"betas": [np.float64(0), 0.99], "eps": np.float32(0.5), "weight_decay": 1}
    optimizer = Adam(**hyper_parameters)
    assert optimizer == Adam(betas=(0.0, 0.99), eps=0.5, weight_decay=1.0)
    numbers = [*optimizer.betas, optimizer.eps, optimizer.weight_decay]
    assert all(type(number) is float for number in numbers)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: SGD(momentum=1), "SGD: momentum is 1; it must be a number, 0 or more and below 1."),
        (lambda: SGD(momentum=-0.1), "SGD: momentum is -0.1; it must be a number, 0 or more and below 1."),
        (lambda: SGD(weight_decay=-1), "SGD: weight_decay is -1; it must be a number, 0 or more."),
        (lambda: SGD(nesterov=True), "SGD's nesterov needs a momentum above 0 and dampening=0."),
        (lambda: SGD(0.9, 0.1, nesterov=True), "SGD's nesterov needs a momentum above 0 and dampening=0."),
        (
            lambda: SGD(dampening=0.1),
            "SGD's dampening acts only with momentum; set momentum too, or dampening=0.",
        ),
        (lambda: EMAMomentum(1.0), "EMAMomentum: beta is 1.0; it must be a number, 0 or more and below 1."),
        (lambda: Adam(eps=-1e-8), "Adam: eps is -1e-08; it must be a number, 0 or more."),
        (lambda: Adam(eps=float("nan")), "Adam: eps is nan; it must be a number, 0 or more."),
        (lambda: Adam(eps=float("inf")), "Adam: eps is inf; it must be a number, 0 or more."),
        (lambda: Adam(eps="1e-8"), 'Adam: eps is "1e-8"; it must be a number, 0 or more.'),  # type: ignore[arg-type]
        (lambda: Adam(eps=True), "Adam: eps is True; it must be a number, 0 or more."),
        (lambda: Adam(betas=0.9), "Adam: betas is 0.9; it must be two numbers."),  # type: ignore[arg-type]
        (
            lambda: AdamW(betas=(0.9, 1.0)),
            "AdamW: betas[1] is 1.0; it must be a number, 0 or more and below 1.",
        ),
        (
            lambda: Yogi(initial_accumulator=-1),
            "Yogi: initial_accumulator is -1; it must be a number, 0 or more.",
        ),
        (lambda: Adagrad(lr_decay=-1), "Adagrad: lr_decay is -1; it must be a number, 0 or more."),
        (lambda: RMSprop(alpha=1.0), "RMSprop: alpha is 1.0; it must be a number, 0 or more and below 1."),
    ],
)
def test_a_hyper_parameter_out_of_its_range_is_refused(build: Callable[[], Optimizer], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        build()
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("optimizer", "temporaries"),
    [
        (SGD(momentum=0.9, weight_decay=0.1), 0),
        (SGD(momentum=0.9, nesterov=True), 0),
        (SGD(momentum=0.9, dampening=0.1), 0),
        (Adam(weight_decay=0.1), 0),
        (AdamW(), 0),
        (Yogi(), 1),
        (Adagrad(weight_decay=0.1), 1),
        (RMSprop(weight_decay=0.1, centered=True), 1),
    ],
    ids=repr,
)
def test_a_step_makes_no_array_of_the_models_size_that_it_could_do_without(
    optimizer: Optimizer, temporaries: int
) -> None:
    weights, gradient = np.ones(1_000_000, np.float32), np.ones(1_000_000, np.float32)
    slots = init_slots(optimizer, weights)
    tracemalloc.start()
    optimizer.step(weights, gradient, slots, 2, 0.1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (temporaries + 0.5) * weights.nbytes


@every_optimizer
def test_weights_of_any_shape_step_alike(optimizer: Optimizer) -> None:
    start, gradients = random_problem(6, "float64", shape=(6,), steps=5)
    flat = descend(optimizer, start, gradients)
    table = descend(optimizer, start.reshape(2, 3), gradients.reshape(-1, 2, 3))
    assert np.array_equal(table.ravel(), flat)
