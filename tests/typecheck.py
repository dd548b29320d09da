"""The checker that holds annotations, array shapes included, true while tests run (see pyproject.toml)."""

from beartype import BeartypeConf, beartype

# The numeric tower: an int serves where a float is asked for, as in Python's own typing rules.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
