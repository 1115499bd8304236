"""What a word of the command line may be: a number, a text or a switch.

Fire guesses kinds from the text, so each argument is looked at before its command is called.
"""

from typing import Any


class CommandLineError(Exception):
    """Words that no command understands; one line."""


NUMBERS = ("seed", "images", "jobs", "limit", "opset")
TEXTS = (
    *("model", "data", "out", "device", "method", "plan", "genki", "zoo", "only", "lines"),
    *("precision", "file", "trigger", "folder", "change"),
)
SWITCHES = ("tf32", "trust_code", "resume", "overwrite", "quiet", "embed_preprocessing")


def typed(name: str, value: Any) -> Any:
    """Fire guesses types from the text: --out=1 is a number, --quiet=no a string."""
    if name in SWITCHES and not isinstance(value, bool):
        raise CommandLineError(
            f"--{name}={value}: takes no value; give --{name} or --no{name}, behind MODEL and DATA"
        )
    if name in NUMBERS:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise CommandLineError(f"--{name}={value}: expected a whole number")
        least, most = (0 if name == "seed" else 1), 2**31 - 1
        if value is not None and not least <= value <= most:
            raise CommandLineError(f"--{name}={value}: expected {least} to {most}")
        return value
    if name in TEXTS and value in ("True", "False"):  # what Fire makes of --out without a value
        raise CommandLineError(f"--{name}: needs a value, as in --{name}=VALUE")
    if isinstance(value, str):
        _check_text(name, value)
    return value


def _check_text(name: str, value: str) -> None:
    if not value and name != "change":  # a shell variable that is not set
        raise CommandLineError(f"--{name}: is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        shown = value.encode(errors="replace").decode()
        raise CommandLineError(f"--{name}={shown}: is no UTF-8; rename the file") from None
