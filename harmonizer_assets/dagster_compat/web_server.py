"""Dagster's web server behind a guard, alone and as part of `dagster dev`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from dagster._cli import dev

_DAEMON: Final = "dagster._daemon"
_WEB_SERVER: Final = "dagster_webserver"


def run_dev(arguments: Sequence[str], web_server: Sequence[str]) -> None:
    """Run `dagster dev` with another program in the place of its web server.

    Args:
        arguments: of `dagster dev`.
        web_server: arguments of Python that run a web server with the options of Dagster's.

    Raises:
        SystemExit: at the end, with the exit code.
        RuntimeError: `dagster dev` starts a process that it is not known to start. The web UI is
            not served then: it might be without its guard.
    """

    def guarded(start: Callable[..., subprocess.Popen[Any]]) -> Callable[..., Any]:
        def start_guarded(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
            python, flag, module, *rest = command
            if (flag, module) == ("-m", _WEB_SERVER):
                return start([python, *web_server, *rest], **options)
            if (flag, module) == ("-m", _DAEMON):
                return start([*command], **options)
            raise RuntimeError(f"this version of Dagster is not supported: it starts {module}")

        return start_guarded

    _wrap(dev, "open_ipc_subprocess", guarded)
    dev.dev_command.main([*arguments], prog_name="dagster dev")


def run_web_server(arguments: Sequence[str], guarded: Callable[[Any], Any]) -> None:
    """Run Dagster's web server.

    Args:
        arguments: of `dagster-webserver`.
        guarded: makes of the ASGI application the one that is served.

    Raises:
        SystemExit: at the end, with the exit code.
    """

    # Imported here: it takes a second, and `dagster dev` does not need it.
    import dagster_webserver.cli

    def make_guarded(make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *positional, **named: guarded(make(*positional, **named))

    _wrap(dagster_webserver.cli, "create_app_from_workspace_process_context", make_guarded)
    sys.argv[1:] = arguments
    dagster_webserver.cli.main()


def _wrap(module: Any, name: str, wrapped: Callable[[Any], Any]) -> None:
    """Replace a function that a module of Dagster calls by one that is made of it.

    Raises:
        AttributeError: the module has none of this name.
    """
    setattr(module, name, wrapped(getattr(module, name)))
