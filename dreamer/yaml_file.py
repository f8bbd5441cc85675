"""YAML files of settings, whatever is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from dreamer.errors import UserError, one_line
from dreamer.files import read_text

LARGEST_FILE = 2**20  # bytes of settings; ours have some thousand


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; anything else is a `UserError`."""
    try:
        size = Path(path).stat().st_size
        if size > LARGEST_FILE:
            raise UserError(f"{path} has {size} bytes, settings take at most {LARGEST_FILE}")
        content = yaml_format().load(read_text(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UserError:
        raise
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply") from error
    except YAMLError as error:
        raise UserError(f"{path}: {_one_line(error)}") from error
    except Exception as error:  # the parser meets odd scalars and tags with odd errors
        raise UserError(f"{path} is damaged: {one_line(error, 100)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold 'key: value' lines")
    return content


def _one_line(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    place = f"line {mark.line + 1}: " if mark else ""
    return place + " ".join(problem.split())


def yaml_format() -> YAML:
    """The dialect of all settings."""
    yaml: Any = YAML(typ="safe", pure=True)  # pure: YAML 1.2, where `off` is text and 1e6 a number
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    return yaml
