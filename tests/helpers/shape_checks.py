"""Checks the types and jaxtyping's shapes of every function of the package while the tests run.

Of a list one random element is checked: sizes that differ between elements have names that start with an underscore.
"""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""beartype's decorator, which also accepts an int where a float is annotated."""
