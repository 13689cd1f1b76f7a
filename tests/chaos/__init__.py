"""Chaos: a real server under load, while everything that it stands on is taken away and given back."""
