"""What a client says of its failure, made fit for the server's log."""

LONGEST_REASON = 300


def printable(reason: str) -> str:
    """The reason such that it fits into a line of a log, and into no other."""
    return "".join(letter if letter.isprintable() else " " for letter in reason[:LONGEST_REASON])
