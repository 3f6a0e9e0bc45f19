"""The one kind of error that is the user's to mend."""


class InputError(ValueError):
    """Bad input. The message is one sentence: what is wrong, what was found, what to do."""
