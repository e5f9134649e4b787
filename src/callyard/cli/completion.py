"""Print a script for a shell that completes commands, options and keys. To have it in each new shell:

bash   callyard completion bash > ~/.local/share/bash-completion/completions/callyard
zsh    echo 'source <(callyard completion zsh)' >> ~/.zshrc
fish   callyard completion fish > ~/.config/fish/completions/callyard.fish
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping

from ..cache.directory import CacheDirectory
from ..cache.inspect.find import all_keys
from . import COMMANDS, parser_of
from .arguments import VARIABLE

__all__ = ["configure", "run"]

_WITH_KEYS = ("show", "explain", "logs", "retry")

_BASH = """\
_callyard() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}} words=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands} --help --version" -- "$word"))
        return
    fi
    case "$command $before" in
{choices}
    esac
    if [ -z "$words" ] && [ "${{word#-}}" != "$word" ]; then
        case "$command" in
{options}
        esac
    fi
    if [ -z "$words" ]; then
        COMPREPLY=($(compgen -d -- "$word"))
        case "$command" in
            {with_keys}) words=$(callyard completion keys "$before" 2> /dev/null) ;;
        esac
    fi
    COMPREPLY+=($(compgen -W "$words" -- "$word"))
}}
complete -F _callyard callyard
"""
_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("shell", choices=["bash", "zsh", "fish", "keys"], help="keys: what the scripts ask for")
    parser.add_argument("directory", nargs="?", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    if options.shell == "keys":
        for key in _keys(options.directory):
            print(key)
    elif options.shell == "fish":
        print(*_fish(), sep="\n")
    else:
        print((_ZSH if options.shell == "zsh" else "") + _bash(), end="")
    return 0


def _keys(directory: str | None) -> list[str]:
    """Return the keys of a directory, if there is one of this name, or else of the cache in the environment."""
    place = directory if directory and os.path.isdir(directory) else os.environ.get(VARIABLE)
    return all_keys(CacheDirectory.open(place, writable=False)) if place else []


def _bash() -> str:
    choices, options = [], []
    for command in COMMANDS:
        actions = _actions(command)
        options.append(f'            {command}) words="{" ".join(actions)}" ;;')
        for option, action in actions.items():
            if action.choices:
                choices.append(f'        "{command} {option}") words="{" ".join(map(str, action.choices))}" ;;')
    shells = '        "completion completion") words="bash zsh fish" ;;'
    return _BASH.format(
        commands=" ".join(COMMANDS),
        choices="\n".join([*choices, shells]),
        options="\n".join(options),
        with_keys=" | ".join(_WITH_KEYS),
    )


def _fish() -> Iterator[str]:
    complete = "complete -c callyard"
    yield f"{complete} -n __fish_use_subcommand -f"
    for command, summary in COMMANDS.items():
        yield f"{complete} -n __fish_use_subcommand -a {command} -d {_quoted(summary)}"
        given = f"{complete} -n '__fish_seen_subcommand_from {command}'"
        for option, action in _actions(command).items():
            values = f" -xa {_quoted(' '.join(map(str, action.choices)))}" if action.choices else ""
            yield f"{given} -l {option[2:]}{values} -d {_quoted(action.help or '')}"
        if command in _WITH_KEYS:
            yield f"{given} -a '(callyard completion keys (commandline -opc)[-1] 2> /dev/null)'"
    yield f"{complete} -n '__fish_seen_subcommand_from completion' -fa 'bash zsh fish'"


def _actions(command: str) -> Mapping[str, argparse.Action]:
    """Return the options of a command, by their long names."""
    parser, _ = parser_of(command)
    return {name: action for action in parser._actions for name in action.option_strings if name.startswith("--")}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"
