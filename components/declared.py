"""Makes components from declarations, for stages that have no component of their own."""

from __future__ import annotations

import linecache
from collections.abc import Iterable
from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from moaa.declaration import Declaration
from moaa.placement import images
from moaa.stages.table import stages

SOURCE = '''def {name}({parameters}):
    """{purpose}.

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        overrides: Values that replace those of the recipe, by their paths.
        run_id: Names the run's records on S3.
{arguments}
        {name}_summary: Counts of the stage.
    """
    from moaa.stages.report import renewed
    from moaa.task import Task
    from {module} import {attribute} as stage

    task = Task(recipe, run_id, overrides)
    with renewed(task):
        stage.main(
            task,
            inputs={inputs},
            output={output}.path,
            summary={name}_summary.path,
        )
'''


def make(stage: Declaration) -> BaseComponent:
    """Return the component of a stage that makes one artifact, from its declaration.

    Kubeflow packs a component's source text, so this is a function with a source text.
    """
    source, filename = text(stage), f"<component {stage.name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    names: dict[str, Any] = {
        each: getattr(dsl, each) for each in ("Input", "Output", "Dataset", "Model", "Markdown")
    }
    names["Any"] = Any
    exec(compile(source, filename, "exec", dont_inherit=True), names)
    make_component = dsl.component(base_image=images.CORE, install_kfp_package=False)
    made: BaseComponent = make_component(names[stage.name])
    return made


def text(stage: Declaration) -> str:
    """Return the source text of the component's function."""
    types = {
        f"{each.name}.{output}": kind for each in stages() for output, kind in each.outputs.items()
    }
    ((output, kind),) = stage.outputs.items()
    module, _, attribute = stage.entry.partition(":")
    needed = [name for name in stage.inputs if name not in stage.optional]
    inputs = ", ".join(f'"{name}": {name}.path' for name in needed)
    given = "".join(
        f', **({{"{name}": {name}.path}} if {name} else {{}})' for name in sorted(stage.optional)
    )
    parameters = [
        "recipe: str",
        "overrides: dict[str, Any]",
        "run_id: str",
        *(f"{name}: Input[{types[stage.inputs[name]]}]" for name in needed),
        f"{output}: Output[{kind}]",
        f"{stage.name}_summary: Output[Markdown]",
        *(f"{name}: Input[{types[stage.inputs[name]]}] = None" for name in sorted(stage.optional)),
    ]
    arguments = [f"{name}: Manifest of {source}." for name, source in stage.inputs.items()]
    return SOURCE.format(
        name=stage.name,
        parameters=", ".join(parameters),
        purpose=stage.purpose,
        arguments=_lines([*arguments, f"{output}: Manifest of what the stage makes."]),
        module=module,
        attribute=attribute,
        inputs=f"{{{inputs}{given}}}",
        output=output,
    )


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(f"        {each}" for each in texts)
