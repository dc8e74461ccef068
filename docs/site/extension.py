"""What the reference changes in the docstrings that Griffe reads, named in mkdocs.yml."""

from __future__ import annotations

from typing import Any

import griffe

from docs.site.docstrings import separated


class OneByOne(griffe.Extension):
    """Gives each of the parameters that a docstring describes together an entry of its own."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = separated(obj.docstring.value)
