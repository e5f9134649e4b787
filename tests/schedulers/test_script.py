"""The script of a job, plain or from a template."""

from __future__ import annotations

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
