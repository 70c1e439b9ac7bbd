"""A command group prints errors that a user can fix as one line and exits with their code. It re-raises other
errors."""

import errno
import os

import click
import pytest
from click.testing import CliRunner, Result

from service.command_group import CommandGroup, echo_line
from service.exit_codes import EXIT_RETRY, EXIT_USAGE_ERROR


class FixableError(Exception):
    exit_code = 7


def run(error: BaseException) -> Result:
    """Runs a command that raises `error`."""

    @click.group(cls=CommandGroup, error_type=FixableError, describe_error=lambda e: (f"{e} Do so.", e.exit_code))
    def group() -> None: ...

    @group.command()
    def fail() -> None:
        raise error

    return CliRunner().invoke(group, ["fail"])


def test_an_error_of_the_given_type_is_printed_as_described() -> None:
    result = run(FixableError("No."))
    assert (result.exit_code, result.stderr, result.stdout) == (7, "Error: No. Do so.\n", "")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "models"), "models: Permission denied."),
        (OSError("out of order"), "The system: out of order."),
    ],
)
def test_an_error_of_the_system_is_a_usage_error(error: OSError, message: str) -> None:
    result = run(error)
    assert (result.exit_code, result.stderr) == (EXIT_USAGE_ERROR, f"Error: {message}\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.ETIMEDOUT])
def test_a_temporary_error_has_the_retry_exit_code(number: int) -> None:
    assert run(OSError(number, os.strerror(number), "results")).exit_code == EXIT_RETRY


def test_too_little_memory_is_a_temporary_error() -> None:
    result = run(MemoryError())
    assert (result.exit_code, result.stderr) == (EXIT_RETRY, "Error: There was too little memory.\n")


def test_ctrl_c_exits_with_130() -> None:
    result = run(KeyboardInterrupt())
    assert (result.exit_code, result.stderr) == (130, "Stopped.\n")


def test_a_closed_output_pipe_is_not_an_error() -> None:
    assert "Error" not in run(BrokenPipeError(32, "Broken pipe")).output


def test_a_programming_error_keeps_its_traceback() -> None:
    assert isinstance(run(ValueError("a bug")).exception, ValueError)


def test_commands_are_listed_in_the_order_of_registration() -> None:
    group = CommandGroup(
        error_type=FixableError,
        describe_error=str,  # type: ignore[arg-type]
        commands=[click.Command("second"), click.Command("first")],
    )
    assert group.list_commands(click.Context(group)) == ["second", "first"]


def test_no_control_character_of_a_name_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    echo_line("\x1b[31mé\x9b\n\x7f\udcff")
    assert capsys.readouterr().out == "\\x1b[31mé\\x9b\\n\\x7f\\udcff\n"
