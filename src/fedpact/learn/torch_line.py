"""The steps of a module whose `forward` is a straight line: one operation after another, each on the last's result.

`torch.fx` finds them: it runs `forward` on a stand-in for the input and notes what is done to it.
"""

import copy
import dis
import operator
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from fedpact.core.seeds import Seed
from fedpact.learn.torch_running import Generators

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

# Without effects and without memory.
_BUILTINS = ("enumerate", "float", "int", "len", "list", "range", "tuple", "zip")

# The operations that a module of torch stands for; their arguments behind the tensor go to it.
_MODULES: dict[Any, Callable[..., nn.Module]] = {
    **dict.fromkeys((functional.relu, torch.relu, torch.relu_, "relu", "relu_"), nn.ReLU),
    **dict.fromkeys((functional.tanh, torch.tanh, "tanh"), nn.Tanh),
    **dict.fromkeys((functional.sigmoid, torch.sigmoid, "sigmoid"), nn.Sigmoid),
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d), nn.MaxPool2d),
    **dict.fromkeys(
        (torch.flatten, "flatten"), lambda start_dim=0, end_dim=-1: nn.Flatten(start_dim, end_dim)
    ),
}


class Operation(nn.Module):
    """One operation on a tensor, all its other arguments being constants.

    Args:
        function: it takes the tensor first;
        args: then these;
        kwargs: and these by name.
    """

    def __init__(
        self, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self._function, self._args, self._kwargs = function, args, dict(kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x, *self._args, **self._kwargs)


def steps_of(module: nn.Module) -> list[nn.Module] | None:
    """Return a module's steps, each a submodule of it or an operation as a module; None if it is not a line.

    It must be the same line every time, in training and in evaluation, but for what its submodules do. A view as
    rows is taken for `torch.nn.Flatten`, which it need not be, so steps are to be tried before they are used.
    """
    tracer, random = _Tracer(), Generators(torch.device("cpu"), Seed.of(0))
    inner = [part for part in module.modules() if not tracer.is_leaf_module(part, "")]
    if not all(is_untouched(part) and _is_constant(part) for part in inner):
        return None
    graphs = []
    for training in (True, False):
        double = copy.deepcopy(module, {id(p): p for p in module.parameters()}).train(training)
        try:
            with random:
                start = random.position()
                graphs.append(tracer.trace(double))
                if random.position() != start:
                    return None
        except Exception:
            return None
    return _along(graphs[0], module) if str(graphs[0]) == str(graphs[1]) else None


def is_untouched(module: nn.Module) -> bool:
    """Whether calling a module runs the `forward` of its class and nothing else."""
    return "forward" not in vars(module) and not any(vars(module).get(hooks) for hooks in _HOOKS)


def _is_constant(module: nn.Module) -> bool:
    """Whether `forward` can depend on nothing but its input, torch, and what the module was made with."""
    forward = type(module).forward
    if not isinstance(forward, FunctionType):
        return False
    if forward.__closure__ or forward.__kwdefaults__:
        return False
    own = {name for kind in type(module).__mro__ if issubclass(kind, nn.Module) for name in vars(kind)}
    own -= set(vars(nn.Module))
    for step in dis.get_instructions(forward):
        if step.opname in ("STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "MAKE_FUNCTION", "IMPORT_NAME"):
            return False
        name = str(step.argval)
        if step.opname == "LOAD_GLOBAL" and not _is_torchs(name, forward.__globals__):
            return False
        # Another method of its own would have to be looked into as well.
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and name in own:
            return False
    return True


def _is_torchs(name: str, known: Mapping[str, Any]) -> bool:
    if name not in known:
        return name in _BUILTINS
    thing = known[name]
    place = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
    return isinstance(place, str) and place.split(".")[0] == "torch"


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or type(m).__module__.startswith("fedpact.")


def _along(graph: fx.Graph, module: nn.Module) -> list[nn.Module] | None:
    inputs = [node for node in graph.nodes if node.op == "placeholder" and node.users]
    here, sizes = inputs[0], set[fx.Node]()
    steps: list[nn.Module] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            continue
        if node.op == "output":
            return steps if len(inputs) == 1 and node.args == (here,) else None
        if _is_size(node, sizes):
            sizes.add(node)
            continue
        step = _step(node, here, sizes, module)
        if step is None:
            return None
        steps.append(step)
        here = node
    return None


def _step(node: fx.Node, here: fx.Node, sizes: set[fx.Node], module: nn.Module) -> nn.Module | None:
    if not node.args or node.args[0] is not here:
        return None
    args, alone = node.args[1:], node.all_input_nodes == [here]
    if node.op == "call_module":
        return module.get_submodule(str(node.target)) if alone and not args and not node.kwargs else None
    if node.target in ("view", "reshape", torch.reshape) and _makes_rows(args, sizes):
        return nn.Flatten()
    if not alone or node.op not in ("call_function", "call_method"):
        return None
    if node.target in _MODULES:
        return _MODULES[node.target](*args, **node.kwargs)
    if callable(node.target):
        return Operation(node.target, args, node.kwargs)
    return Operation(operator.methodcaller(node.target, *args, **node.kwargs), (), {})


def _is_size(node: fx.Node, sizes: set[fx.Node]) -> bool:
    """Whether it is the shape of a result, or the first number of one."""
    if node.op == "call_method" and node.target == "size":
        return not node.kwargs and node.args[1:] in ((), (0,))
    if node.target is getattr:
        return node.args[1:] == ("shape",)
    return node.target is operator.getitem and node.args[0] in sizes and node.args[1:] == (0,)


def _makes_rows(shape: tuple[Any, ...], sizes: set[fx.Node]) -> bool:
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    if len(shape) != 2 or isinstance(shape[1], fx.Node):
        return False
    return shape[0] in sizes or shape[0] == -1
