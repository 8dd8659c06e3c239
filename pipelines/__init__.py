"""The alignment pipeline: its DAG, how it is compiled, submitted and run.

Import it as `moaa.pipelines`. The folder `moaa/pipelines` is a link to this one, so that a checkout
and an installed wheel have the same names.
"""

if __name__ != "moaa.pipelines":
    raise ImportError(f"import moaa.pipelines, not {__name__}: two copies would be loaded")
