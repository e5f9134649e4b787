"""The script of a job, plain or from a template."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from callyard.resources import Resources
from callyard.schedulers.script import VARIABLES, job_script, render, variables, variables_of

COMMAND = [sys.executable, "-c", "import sys; print(sys.argv[1:])", "a b", "$HOME", "'", "`x`", "\n"]


def run(script: str, path: Path) -> str:
    path.write_text(script, encoding="utf-8")
    return subprocess.run(["bash", path], check=True, capture_output=True, encoding="utf-8").stdout


def given(resources: Resources | None = None, **changes: object) -> dict[str, object]:
    known = variables(resources or Resources(), ["run", "a b"], job_name="energy", log="/run/a.log")
    return known | changes


# ------------------------------------------------------------------ plain


def test_the_command_means_itself(tmp_path: Path) -> None:
    assert run(job_script(COMMAND), tmp_path / "job.sh") == f"{COMMAND[3:]}\n"


def test_setup_is_for_the_shell(tmp_path: Path) -> None:
    script = job_script(["printenv", "PLACE"], ["export PLACE=$(echo somewhere)"])
    assert run(script, tmp_path / "job.sh") == "somewhere\n"


def test_directives_come_first() -> None:
    script = job_script(["true"], ["module load x"], ["#SBATCH --hint=nomultithread"])
    assert script.splitlines() == ["#!/bin/bash", "#SBATCH --hint=nomultithread", "module load x", "exec true"]


def test_the_command_takes_the_shells_place(tmp_path: Path) -> None:
    code = "import os; print(os.getpid() == int(os.environ['SHELL_PID']))"
    assert run(job_script([sys.executable, "-c", code], ["export SHELL_PID=$$"]), tmp_path / "job.sh") == "True\n"


# ------------------------------------------------------------------ its exit code


def start(
    directory: Path, command: list[str], setup: tuple[str, ...] = (), teardown: tuple[str, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start a script that leaves its exit code; what it prints comes through a pipe."""
    exit_file = shlex.quote(f"{directory}/it's ") + '"$ELEMENT".exit'
    (directory / "job.sh").write_text(job_script(command, setup, exit_file=exit_file, teardown=teardown))
    argv, environment = ["bash", str(directory / "job.sh")], {**os.environ, "ELEMENT": "3"}
    return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def left(directory: Path) -> str:
    path = directory / "it's 3.exit"
    assert path.stat().st_mode & 0o777 == 0o600
    return path.read_text()


DIES = "import os, sys; os.kill(os.getpid(), int(sys.argv[1]))"


@pytest.mark.parametrize(
    ("command", "setup", "code"),
    [
        (["true"], (), 0),
        ([sys.executable, "-c", "raise SystemExit(7)"], (), 7),
        (["/nowhere/python"], (), 127),
        (["true"], ("exit 3",), 3),
        (["true"], ("set -e", "false"), 1),
        ([sys.executable, "-c", "raise SystemExit(4)"], ("set -eu", "set -o noclobber"), 4),
        ([sys.executable, "-c", "raise SystemExit(143)"], (), 143),
        ([sys.executable, "-c", DIES, "9"], (), -9),
        ([sys.executable, "-c", DIES, "10"], (), -10),
    ],
    ids=str,
)
def test_a_script_leaves_its_exit_code(tmp_path: Path, command: list[str], setup: tuple[str, ...], code: int) -> None:
    with start(tmp_path, command, setup) as script:
        assert script.wait() == code
    assert left(tmp_path) == f"{code if code >= 0 else 128 - code}\n"


@pytest.mark.parametrize("code", [0, 5, -10])
def test_the_teardown_comes_last_and_changes_nothing(tmp_path: Path, code: int) -> None:
    exit_file, setup = shlex.quote(f"{tmp_path}/exit"), ("set -eu", "WHERE=there", "umask 027")
    teardown = (f"cat {exit_file}", "false", "umask", "echo $WHERE", "cd /", "exit 9")
    command = [sys.executable, "-c", "raise SystemExit(int(sys.argv[1]))" if code >= 0 else DIES, str(abs(code))]
    command[2] = f"import sys; {command[2]}"
    script = tmp_path / "job.sh"
    script.write_text(job_script(command, setup, exit_file=exit_file, teardown=teardown))
    ended = subprocess.run(["bash", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    assert ended.returncode == code
    assert ended.stdout.decode().split() == [str(code if code >= 0 else 128 - code), "0027", "there"]


def test_the_teardown_without_a_file_for_the_exit_code_and_after_a_failed_setup(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(job_script(["true"], ("exit 3",), teardown=("echo over",)))
    ended = subprocess.run(["bash", script], stdout=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stdout) == (3, b"over\n")


LISTENS = """
import signal, sys
got = []
signal.signal(signal.SIGUSR1, lambda signum, frame: print("USR1", flush=True))
signal.signal(signal.SIGTERM, lambda signum, frame: got.append(signum))
print("ready", flush=True)
while not got:
    signal.pause()
sys.exit(5)
"""


@pytest.mark.parametrize("setup", [(), ("set -eu",)], ids=str)
def test_the_shell_passes_signals_on(tmp_path: Path, setup: tuple[str, ...]) -> None:
    with start(tmp_path, [sys.executable, "-c", LISTENS], setup, ("echo over",)) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == b"ready\n"
        for _ in range(2):
            script.send_signal(signal.SIGUSR1)
            assert script.stdout.readline() == b"USR1\n"
        script.terminate()
        assert script.stdout.read() == b"over\n"
        assert script.wait() == 5
    assert left(tmp_path) == "5\n"


# ------------------------------------------------------------------ templates

needs_jinja = pytest.mark.needs("jinja2")

TEMPLATE = """\
#!/bin/bash
#SBATCH --ntasks={{ ranks }} --time={{ time_minutes }}
{% if memory_mib %}
#SBATCH --mem={{ memory_mib }}
{% endif %}
{% if account %}
#SBATCH --account={{ account }}
{% endif %}
{{ setup }}
{{ command }}
"""


@needs_jinja
def test_a_template() -> None:
    known = variables(
        Resources(ranks=2, memory=1.5), ["run", "a b"], job_name="energy", log="/l", setup=["one", "two"], time=61
    )
    assert render(TEMPLATE, known) == (
        "#!/bin/bash\n#SBATCH --ntasks=2 --time=2\n#SBATCH --mem=1536\none\ntwo\nrun 'a b'\n"
    )


@pytest.mark.parametrize("key", [*VARIABLES, *(f"resources.{key}" for key in ("ranks", "memory", "env", "gres"))])
def test_every_documented_variable_is_given(key: str) -> None:
    assert key.rpartition(".")[2] in given()


@needs_jinja
def test_a_key_of_the_users_own() -> None:
    assert variables_of("{{ command }} {{ walltime_class }}") == {"command", "walltime_class"}
    assert render("{{ walltime_class }}", given(walltime_class="short")) == "short"


@needs_jinja
def test_names_that_come_from_the_template_itself() -> None:
    template = "{% set a = 1 %}{% for b in range(cores_per_rank) %}{{ a + b }}{% endfor %}"
    assert variables_of(template + "{{ command }}") == {"command", "cores_per_rank"}
    assert render(template, given()) == "1"


@needs_jinja
def test_an_optional_key_of_the_users_own() -> None:
    assert render("{% if fast is defined %}{{ fast }}{% endif %}", given()) == ""


@needs_jinja
def test_values_can_be_quoted() -> None:
    assert render("cd {{ cwd | quote }}", given(Resources(cwd="/a b"))) == "cd '/a b'"


@needs_jinja
def test_schedulers_know_no_homes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    asked = Resources(cwd="~/a", error_log_file="log")
    assert render("{{ cwd }} {{ error_log_file }}", given(asked)) == "/home/me/a log"


@needs_jinja
@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ comand }}", "uses 'comand', which nobody has set; did you mean 'command'?"),
        ("{{ zzzz }}", "uses 'zzzz', which nobody has set; known are account, "),
        ("--account={{ account }}", "prints account, which this call does not set: set it, or write {% if account %}"),
        ("{{ partition | quote }}", "prints partition, which this call does not set"),
        ("line\n{% if %}", "line 2 of the template of the job script is wrong: Expected an expression"),
        (
            "{{ cwd | qoute }}",
            "line 1 of the template of the job script is wrong: No filter named 'qoute': did you mean 'quote'?",
        ),
        ("{{ cwd | bogus }}", "is wrong: No filter named 'bogus'"),
        ("{{ bogus }}", "uses 'bogus', which nobody has set; known are account, "),
        ("{{ ranks.x.y }}", "cannot be filled in: 'int object' has no attribute 'x'"),
        ("{{ ranks + command }}", "cannot be filled in: unsupported operand"),
    ],
)
def test_mistakes_in_templates(template: str, words: str) -> None:
    with pytest.raises(ValueError) as raised:
        render(template, given())
    assert words in str(raised.value)


@needs_jinja
def test_a_template_that_runs_nothing() -> None:
    with pytest.raises(ValueError, match=r"does not run \{\{ command \}\}, so its job would make no call"):
        variables_of("#!/bin/bash\nmodule load {{ setup }}\n")


def test_without_jinja(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ValueError, match="pip install jinja2"):
        render("", {})
    with pytest.raises(ValueError, match="pip install jinja2"):
        variables_of("")
