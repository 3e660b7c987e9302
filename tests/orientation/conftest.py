"""Lets tests leave figures that are printed after the run."""

import pytest

FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figure(request):
    """Call it with a line to print at the end."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(FIGURES, []):
        terminalreporter.write_line(line)
