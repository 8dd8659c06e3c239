"""The pipeline's Kubeflow components: one folder for each stage, with a typed signature and one
call into `moaa.stages`.

component(GENERATE)     the component of a declared stage

Import it as `moaa.components`. The folder `moaa/components` is a link to this one, so that a
checkout and an installed wheel have the same names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if __name__ != "moaa.components":
    raise ImportError(f"import moaa.components, not {__name__}: two copies would be loaded")

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

    from moaa.declaration import Declaration


def component(stage: Declaration) -> BaseComponent:
    """Return the component of a stage: the one in its declaration,
    else one made from the declaration."""
    if stage.component is None:
        from moaa.components.declared import make

        return make(stage)
    module, _, name = stage.component.partition(":")
    return cast("BaseComponent", getattr(import_module(module), name))
