"""The agent's command: what is put into it, and that nothing of that is ever executed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heartlane.worker.command_line import (
    PLACEHOLDERS,
    argument_bytes_max,
    filled,
    names_placeholder,
    values_of,
)
from heartlane.worker.errors import WorkerError

RUN = {"id": "019a", "title": "Totals", "lane_key": "api", "role": "backend", "attempt": 2}
VALUES = values_of(RUN, prompt="Add totals.", prompt_file="/tmp/prompt.md", branch="heartlane/api-1")
ECHO = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]


def printed(command: list[str]) -> list[str]:
    """The arguments that a program started with them really has."""
    arguments: list[str] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return arguments


def test_every_placeholder_has_a_value() -> None:
    assert set(VALUES) == set(PLACEHOLDERS)
    assert filled(["agent", *(f"{{{name}}}" for name in PLACEHOLDERS)], VALUES)[1:] == [
        *("Add totals.", "/tmp/prompt.md", "Totals", "api", "backend", "019a", "2", "heartlane/api-1"),
    ]


@pytest.mark.parametrize(
    ("argument", "wanted"),
    [
        ("--on={branch}", "--on=heartlane/api-1"),
        ("{title}/{title}", "Totals/Totals"),
        ('{"task": {"role": "{role}"}}', '{"task": {"role": "backend"}}'),
        ("{unknown} {} {{}} {0} {Prompt} { prompt }", "{unknown} {} {{}} {0} {Prompt} { prompt }"),
        ("{{prompt}} is {title}", "{prompt} is Totals"),
        ("{{.Title}}", "{{.Title}}"),
        ("${title}", "$Totals"),
        ("", ""),
    ],
)
def test_known_braces_are_filled_and_all_others_stay(argument: str, wanted: str) -> None:
    assert filled(["agent", argument], VALUES) == ["agent", wanted]


def test_values_are_not_looked_into_again() -> None:
    assert filled(["agent", "{prompt}"], {**VALUES, "prompt": "{title} {{role}}"})[1] == "{title} {{role}}"


def test_the_program_is_taken_as_it_is() -> None:
    assert filled(["{prompt}", "x"], VALUES)[0] == "{prompt}"


def test_a_value_is_not_taken_for_an_option() -> None:
    values = {**VALUES, "prompt": "- first\n- second"}
    assert filled(["agent", "{prompt}", "-p={prompt}"], values)[1:] == [" - first\n- second", "-p=- first\n- second"]


@given(prompt=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@settings(max_examples=15, deadline=None)
def test_any_prompt_arrives_as_it_is(prompt: str) -> None:
    shown = f" {prompt}" if prompt.startswith("-") else prompt
    assert printed(filled([*ECHO, "{prompt}"], {**VALUES, "prompt": prompt})) == [shown]


# --- with a shell -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "agent {title} | tee log",
        "cd sub && agent --on={branch} {prompt} # it's done",
        'agent "$HOME" "$(pwd)/x" {title}',
        "x=$(agent {title}); echo \"$x\" '$(no)' {role}",
        "agent `pwd` {title}",
        "# it's a comment\nagent {title}",
        "agent it\\'s {title}",
    ],
)
def test_a_shell_command_is_filled_with_quoted_values(text: str) -> None:
    values = {**VALUES, "title": "a'b $(id)", "prompt": 'x "y"'}
    shell, dash, command = filled([text], values, by_shell=True)
    assert (shell, dash) == ("/bin/sh", "-c")
    assert ("'a'\"'\"'b $(id)'" in command) == ("{title}" in text)


def test_variables_of_the_shell_stay() -> None:
    assert filled(["echo ${title} {{title}}"], VALUES, by_shell=True)[2] == "echo ${title} {title}"


@pytest.mark.parametrize(
    ("text", "within"),
    [
        ('agent "{title}"', "double quotes"),
        ("agent '{title}'", "single quotes"),
        ("agent `echo {title}`", "backticks"),
        ("agent \\{title}", "an escape"),
        ("agent # {title}", "a comment"),
        ("cat <<END\n{title}\nEND", "a here-document"),
        ('agent "$(echo "{title}")"', "a nested substitution"),
        ('agent "`echo "x"` {title}"', "a nested substitution"),
        ("agent $'it\\'s' {title}", "a nested substitution"),
        ('agent ${x:-"} {title}', "a nested substitution"),
        ("agent $((1 + {title}))", "a nested substitution"),
        ("# it's\nagent '{title}'", "single quotes"),
    ],
)
def test_a_placeholder_that_cannot_be_quoted_safely_is_refused(text: str, within: str) -> None:
    with pytest.raises(WorkerError) as caught:
        filled([text], VALUES, by_shell=True)
    assert f"{{title}} stands within {within} of the --shell command" in str(caught.value)
    assert caught.value.kind == "wrong_input"


PIECES = st.sampled_from([*"x '\"`\\\n#)}$;|", "{title}", "$(", "${x}", "${x:-", "<<E", "E", "&&", "$((", "))"])
TEXTS = st.builds("true {}{{title}}{}".format, *[st.lists(PIECES, max_size=8).map("".join)] * 2)


@given(text=TEXTS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_is_ever_executed_whatever_stands_around_it(text: str, tmp_path: Path) -> None:
    canary = tmp_path / "executed"
    run = f"echo>{canary}"
    for title in (f"$({run})", f"`{run}`", f"'; {run}; '", f'"; {run}; "', f"\n{run}\n", f"\\'; {run} #"):
        try:
            command = filled([text], {**VALUES, "title": title}, by_shell=True)
        except WorkerError:
            return
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
        assert not canary.exists(), command[2]


# --- what the system takes ----------------------------------------------------------------------------------------


def test_the_longest_argument_really_goes_through_and_one_more_byte_does_not() -> None:
    longest = argument_bytes_max()
    long = {**VALUES, "prompt": "x" * longest}
    command = filled([sys.executable, "-c", "import sys; print(len(sys.argv[1]))", "{prompt}"], long)
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{longest}\n"
    with pytest.raises(WorkerError, match=r"Give the agent the file instead, with \{prompt_file\}") as caught:
        filled(["agent", "{prompt}"], {**VALUES, "prompt": "x" * (longest + 1)})
    assert caught.value.kind == "prompt_unusable"


def test_bytes_count_not_characters() -> None:
    with pytest.raises(WorkerError, match="too long"):
        filled(["agent", "{prompt}"], {**VALUES, "prompt": "ß" * (argument_bytes_max() // 2 + 1)})


def test_all_arguments_together_are_bounded_too() -> None:
    half = {**VALUES, "prompt": "x" * (argument_bytes_max() // 2)}
    with pytest.raises(WorkerError, match="too long"):
        filled(["agent", *["{prompt}"] * 100], half)


@pytest.mark.parametrize("prompt", ["a\0b", "\udcff\ud800"])
def test_what_no_argument_can_hold_is_one_line(prompt: str) -> None:
    with pytest.raises(WorkerError) as caught:
        filled(["agent", "{prompt}"], {**VALUES, "prompt": prompt})
    assert caught.value.kind == "prompt_unusable"


def test_no_command_is_one_line() -> None:
    with pytest.raises(WorkerError, match="no command is given"):
        filled([], VALUES)


def test_a_command_that_needs_a_branch_is_known() -> None:
    assert names_placeholder(["agent", "--on={branch}"], "branch")
    assert not names_placeholder(["agent", "{{branch}}", "{title}"], "branch")
