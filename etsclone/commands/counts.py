"""Whole numbers on the command line."""

from argparse import ArgumentTypeError
from collections.abc import Callable


def count_from(least: int) -> Callable[[str], int]:
    """What a parser takes for a number: `least`, or more. It raises ArgumentTypeError for anything else."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise ArgumentTypeError(f"not a whole number of {least} or more: {text!r}")
        return number

    return parse
