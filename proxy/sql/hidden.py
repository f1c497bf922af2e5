"""Why it cannot be told which parameters a text sets: in words for whoever sent it."""

from __future__ import annotations

from enum import Enum


class Hidden(Enum):
    """(what it is, what to do instead)"""

    COMPUTED_NAME = (
        "set_config() with a computed parameter name",
        "Write the parameter's name as a literal.",
    )
    BLOCK = (
        "a DO block that sets parameters or runs dynamic SQL",
        "Set parameters outside of the block, where they can be inspected.",
    )
    FOREIGN_BLOCK = (
        "a DO block in another language than plpgsql",
        "What such a block does cannot be inspected.",
    )
    PG_SETTINGS = (
        "UPDATE of pg_settings",
        "Use SET, or set_config() with the parameter's name as a literal.",
    )
    AGGREGATE = (
        "an aggregate that sets parameters or runs texts",
        "What it is called with cannot be inspected; call the function itself.",
    )
    TEXT_RUNNER = (
        "a function that runs a text as a statement",
        "What it runs cannot be inspected; send the statement itself.",
    )
    QUOTING = (
        "a statement with a backslash and a quote behind a character that is not ASCII",
        "Where its strings end depends on the client encoding; send the values as parameters.",
    )
    UNREADABLE = (
        "a statement that cannot be parsed and may set parameters",
        "If it is right, set parameters in a statement of its own.",
    )
    CALL = (
        "a call of this function by its number",
        "What it does cannot be inspected; call it in a query.",
    )

    @property
    def what(self) -> str:
        return self.value[0]

    @property
    def hint(self) -> str:
        return self.value[1]
