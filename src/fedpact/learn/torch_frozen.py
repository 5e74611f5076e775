"""Modules of which only a part is trained: what is frozen neither changes nor travels."""

from collections.abc import Sequence

from torch import nn

from fedpact.core.errors import ModelError, suggest
from fedpact.core.patterns import Patterns, check_patterns, fits
from fedpact.learn.torch_modules import copied


def freeze(module: nn.Module, include: Patterns = "*", exclude: Patterns = ()) -> nn.Module:
    """Return a copy of a module with some of its parameters frozen.

    Frozen parameters are constants of the model: no client trains them, and no update holds them. Normalising layers
    whose parameters are all frozen, or that have none, are put into evaluation mode, so that what they have learnt of
    their inputs stays what it is too; their buffers travel all the same, unchanged, unless a `Partial` stage of the
    channel leaves them out.

    Args:
        module: the module.
        include: a pattern for names of parameters to freeze, such as "backbone.*", or several.
        exclude: patterns for names of parameters that are left as they are, such as "head.*".

    Raises:
        ConfigError: a pattern is no text.
        ModelError: no parameter fits, or none is left to train.

    >>> from torch import nn
    >>> network = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> [name for name, p in freeze(network, exclude="2.*").named_parameters() if p.requires_grad]
    ['2.weight', '2.bias']
    """
    chosen = check_patterns(include, "freeze: include"), check_patterns(exclude, "freeze: exclude")
    module = copied(module)
    frozen = 0
    # A tied parameter is frozen by any of its names, and left by any of them.
    parameters = list(module.named_parameters(remove_duplicate=False))
    left = {id(parameter) for name, parameter in parameters if fits(name, chosen[1])}
    for name, parameter in parameters:
        if fits(name, chosen[0]) and id(parameter) not in left:
            parameter.requires_grad_(False)
            frozen += 1
    if not frozen:
        raise no_name_fits("parameter", chosen[0], [name for name, _ in parameters])
    if not any(parameter.requires_grad for _, parameter in parameters):
        raise ModelError('freeze leaves nothing to train; name what is to be trained: exclude="head.*".')
    rest_frozen(module)
    return module


def rest_frozen(module: nn.Module) -> None:
    """Put normalising layers that are not trained into evaluation mode, and the whole module out of it, in place."""
    if not module.training:
        # A module that is in it as a whole would be trained as a whole.
        module.train()
    for part in module.modules():
        norm = isinstance(part, nn.modules.batchnorm._NormBase)
        if norm and not any(parameter.requires_grad for parameter in part.parameters()):
            part.eval()


def no_name_fits(what: str, patterns: Sequence[str], names: Sequence[str]) -> ModelError:
    """Return the error of patterns that no name fits.

    Args:
        what: what is called so: "parameter".
        patterns: the patterns.
        names: the names that there are.
    """
    hint = next((found for pattern in patterns if (found := suggest(pattern, names))), "")
    shown = ", ".join(f'"{name}"' for name in names[:8]) + (", …" if len(names) > 8 else "")
    said = " or ".join(f'"{pattern}"' for pattern in patterns)
    return ModelError(f"no {what} of the module fits {said}.{hint} There are {shown or 'none'}.")
