"""Messages for users."""

from pathlib import Path

from dietnerf_ns.utils.errors import first_names


def test_the_first_names_are_named_and_the_rest_is_counted():
    paths = [Path("photos") / f"{i}.png" for i in range(7)]
    assert first_names(paths[:5]) == "0.png, 1.png, 2.png, 3.png, 4.png"
    assert first_names(paths) == "0.png, 1.png, 2.png, 3.png, 4.png and 2 more"
