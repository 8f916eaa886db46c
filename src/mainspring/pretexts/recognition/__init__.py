"""Pretexts that name which change was made to a recording."""
