"""What a planner has written that knows the bytes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes to put at an offset of the target."""

    offset: int
    data: bytes
    what: str
