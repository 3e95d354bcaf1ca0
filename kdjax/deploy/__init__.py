"""Handing the student over."""
