"""Providers' own price interfaces, each asked for one region: rows as our lists have them. Raises `clouds.errors`.

Nothing is guessed: a row whose unit, currency or kind is not the one that is meant is left out.
"""
