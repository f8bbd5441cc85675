"""What a user or a machine can cause is one line of at most 300 characters and an exit code."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from dreamer.boundary import guarded
from dreamer.config import load_presets
from dreamer.errors import DatasetError, NonFiniteError, UserError, one_line
from dreamer.files import parse_json, read_json, read_text
from dreamer.training.episode_log import EpisodeLog
from dreamer.training.logger import Logger
from dreamer.training.run_folder import read_starts
from dreamer.values import convert
from dreamer.yaml_file import LARGEST_FILE, read_yaml

NOTHING: dict = {}


def fail(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (UserError("no such task"), "error: no such task", 2),
        (DatasetError("a.h5 is damaged"), "error: a.h5 is damaged", 4),
        (NonFiniteError("not finite: x"), "error: not finite: x", 3),
        (OSError(errno.ENOSPC, "No space left", "a/b"), "error: a/b: No space left", 2),
        (OSError("disk is odd"), "error: writing: disk is odd", 2),
        (MemoryError(), "error: there is not enough memory for this", 2),
        (
            RuntimeError("not enough memory: you tried"),
            "error: there is not enou",
            2,
        ),
        (RuntimeError("can't start new thread"), "error: the machine starts no further thread", 2),
        (UnicodeEncodeError("ascii", "é", 0, 1, "no"), "error: 'é' cannot be written as ascii", 2),
        (ModuleNotFoundError("no", name="av_missing.x"), "error: no package 'av_missing' here", 2),
        (KeyboardInterrupt(), "stopped here", 130),
    ],
)
def test_what_a_machine_causes_is_a_line(error, line, code, capsys):
    assert guarded(partial(fail, error), "stopped here") == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(line)


@pytest.mark.parametrize(
    "error",
    [
        TypeError("ours"),
        KeyError("ours"),
        RuntimeError("shapes differ"),
        ModuleNotFoundError("no", name="dreamer.missing"),
    ],
)
def test_what_only_we_can_cause_stays_a_traceback(error):
    with pytest.raises(type(error)):
        guarded(partial(fail, error))


def test_a_message_is_one_line_of_300_characters():
    long = "begin\n" + "x" * 60_000 + "\tend of it"
    text = one_line(long)
    assert len(text) == 300
    assert text.startswith("begin xxx")
    assert text.endswith("x end of it")
    assert "\n" not in text
    assert one_line("a\x1b[31m\x00b") == "a\\x1b[31m\\x00b"
    assert one_line("short") == "short"


@pytest.mark.parametrize("digits", [400, 5000])
@pytest.mark.parametrize("kind", [int, float])
def test_long_numbers_are_refused(digits, kind):
    for raw in ("9" * digits, int("9" * 400), "-" + "9" * digits):
        with pytest.raises(UserError) as error:
            convert(raw, kind, NOTHING, "--seed")
        assert len(str(error.value)) < 200


def test_seeds_of_twenty_digits_are_refused():
    with pytest.raises(UserError, match="--seed must be at most 9223372036854775807"):
        convert("1" + "0" * 19, int, NOTHING, "--seed")
    assert convert(str(2**63 - 1), int, NOTHING, "--seed") == 2**63 - 1


def test_a_text_that_holds_nul_is_refused():
    with pytest.raises(UserError, match="NUL"):
        convert("a\0b", str, NOTHING, "--logdir")


ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + k)}: &{chr(98 + k)} [{','.join([f'*{chr(97 + k)}'] * 9)}]\n" for k in range(8)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "is no text"),
        (b"a: " + b"[" * 3000, "nested too deeply|damaged|line 1"),
        (b"a: " + b"9" * 5000, "damaged|line 1"),
        (b"- 1\n- 2\n", "must hold 'key: value' lines"),
        (b"a: !!python/object/apply:os.system ['x']", "line 1"),
        (b"a: b: c", "line 1"),
        (b"#" * (LARGEST_FILE + 1), "settings take at most"),
        (ALIASES.encode(), "preset 'a' must be a section"),
    ],
)
def test_damaged_settings_are_a_line(tmp_path, content, message):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load_presets(path)
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_a_missing_settings_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*nothing.yaml: No such file"):
        read_yaml(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "is no text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number of 5000 digits"),
        (b"{", "Expecting property name"),
    ],
)
def test_damaged_json_is_a_line(tmp_path, content, message):
    path = tmp_path / "summary.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_json(path)
    assert len(str(error.value)) < 300
    assert read_starts(path) is None


def test_json_knows_numbers_of_64_bits():
    assert parse_json('{"a": 9223372036854775807, "b": -1.5}') == {"a": 2**63 - 1, "b": -1.5}


def test_text_is_utf8_whatever_the_locale_says(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes("logdir: läufe\n".encode())
    code = (
        "import sys; from dreamer.boundary import guarded\n"
        "from dreamer.yaml_file import read_yaml\n"
        "sys.exit(guarded(lambda: print(read_yaml(sys.argv[1])['logdir']) or 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
             "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"l\\xe4ufe\n", b"")


def test_lines_of_a_log_that_are_damaged_are_dropped(tmp_path):
    good = json.dumps({"step": 1, "x": 2.0})
    lines = [good, "[" * 100_000, '{"step": ' + "1" * 5000 + "}", '{"step": "one"}', "[1]", "\0"]
    (tmp_path / "metrics.jsonl").write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\n")
    Logger(tmp_path, quiet=True, resume_step=5).close()
    assert read_text(tmp_path / "metrics.jsonl") == f"{good}\n"


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"agent_steps": 1, "length": 0, "cost": 1, "violations": 0}',
        '{"agent_steps": 1, "length": 5, "cost": NaN, "violations": 0}',
        '{"agent_steps": 1, "length": 5, "cost": ' + "9" * 400 + ', "violations": 0}',
        '{"agent_steps": -1, "length": 5, "cost": 0, "violations": 0}',
    ],
)
def test_damaged_episode_lines_are_named(tmp_path, line):
    path = tmp_path / "episodes.jsonl"
    path.write_text(f"{line}\n{{}}\n")
    with pytest.raises(UserError, match="line 1 is damaged"):
        EpisodeLog(path, 100)
    path.write_bytes(b"\xff\n\n")
    with pytest.raises(UserError, match="is no text"):
        EpisodeLog(path, 100)


def test_names_that_are_too_long_are_a_line(capsys):
    def command() -> int:
        return int(Path("x" * 5000).exists())

    if sys.version_info < (3, 12):
        assert guarded(command) == 2
        err = capsys.readouterr().err
        assert err.endswith("File name too long\n")
        assert len(err) <= 300 + len("\n")
