"""The run-time type checker of the tests: ints are welcome where floats are asked (PEP 484)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
