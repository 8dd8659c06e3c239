"""Reads command lines of engines as JSON, and prints what vLLM's own parser makes of them.

The parser of the CUDA build needs no GPU, but vLLM does not start without a device: it is told
that there is one.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

KEPT = ("model_tag", "served_model_name", "tensor_parallel_size", "max_num_seqs", "max_model_len",
        "revision", "quantization", "dtype", "generation_config")  # fmt: skip


def main() -> None:
    interface: Any = importlib.import_module("vllm.platforms.interface")
    interface.UnspecifiedPlatform.device_type = "cuda"
    utilities: Any = importlib.import_module("vllm.utils.argparse_utils")
    arguments: Any = importlib.import_module("vllm.entrypoints.launchers.cli_args")
    found = []
    for line in json.load(sys.stdin):
        parser = arguments.make_arg_parser(utilities.FlexibleArgumentParser())
        parsed = parser.parse_args(line)
        arguments.validate_parsed_serve_args(parsed)
        found.append({name: getattr(parsed, name) for name in KEPT})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
