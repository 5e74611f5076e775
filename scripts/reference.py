"""How the reference is read from the source: an extension of griffe, which mkdocstrings runs."""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class Reference(griffe.Extension):
    """Shows each name once, in the module that defines it, and the doctests in prose as code."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Forget what packages export from their own modules, which are shown below them."""
        packages = [pkg]
        for package in packages:
            package.exports = None
            own = [module for module in package.modules.values() if not module.is_alias]
            packages += [module for module in own if module.is_init_module]

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Fence the doctests of one docstring: Markdown would take their >>> for a quotation."""
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
