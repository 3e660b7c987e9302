"""What stops an import."""


class Refused(Exception):
    """The folder cannot be turned into a network; the message names what is wrong with it."""
