"""Where the recorded fixtures lie, and how the reference scripts write them.

Every script here imports this module. Run any of them from anywhere:

    python -m venv .venv && .venv/bin/pip install torch transformers peft pandas tokenizers safetensors
    OMP_NUM_THREADS=1 .venv/bin/python tests/reference/SCRIPT.py
"""
import importlib.metadata
import json
import pathlib
import platform

FIXTURES = pathlib.Path(__file__).resolve().parents[1] / "fixtures"


def made_with(script, *packages):
    """The script's name and the versions of Python and `packages`, for a fixture's "made_with" field."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"script": f"tests/reference/{pathlib.Path(script).name}", "python": platform.python_version(), **versions}


def write_json(path, value):
    """Write `value` with one line for each innermost list, so that a diff of a fixture can be read."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_lines(value, "") + "\n", encoding="utf-8")


def _lines(value, indent):
    inner = indent + "  "
    flat = json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict) and value and len(indent + flat) > 100:
        rows = [f"{inner}{json.dumps(k, ensure_ascii=False)}: {_lines(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value) and len(indent + flat) > 100:
        return "[\n" + ",\n".join(inner + _lines(v, inner) for v in value) + f"\n{indent}]"
    return flat
