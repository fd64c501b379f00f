"""The README keeps its word: its Python runs, and its commands are those of the package."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from numinit import cli

README = Path(__file__).parents[1] / "README.md"

if not README.is_file():
    pytest.skip("the tests run without the repository", allow_module_level=True)

TEXT = README.read_text(encoding="utf-8")


def fenced(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_python_blocks_run_in_order():
    space = {}
    for block in fenced("python"):
        exec(compile(block, "README.md", "exec"), space)


def test_the_main_command_writes_a_model(tmp_path, monkeypatch, capsys):
    command = (
        TEXT.partition("<!-- main-command -->")[2].partition("```bash\n")[2].partition("```")[0]
    )
    words = shlex.split(command.rpartition("&&")[2])
    assert words[0] == ".venv/bin/numinit"
    monkeypatch.chdir(tmp_path)
    assert cli.main(words[1:]) == 0
    written = tmp_path / words[words.index("-o") + 1]
    assert cli.main(["verify", str(written)]) == 0
    assert "148 tensors" in capsys.readouterr().out


def test_shown_commands_parse():
    for line in re.findall(r"^\$ numinit ([^#\n]*)", TEXT, re.MULTILINE):
        cli._parser().parse_args(shlex.split(line))


@pytest.mark.skipif(sys.platform == "win32", reason="the CI script is for bash")
def test_ci_calls_the_test_command_of_the_readme():
    assert TEXT.count("<!-- test-command -->") == TEXT.count("<!-- main-command -->") == 1
    script = README.parent / ".ci" / "run"
    if script.is_file():
        assert 'eval "$(readme_command test-command)"' in script.read_text(encoding="utf-8")
