"""Losses as their authors, or the benchmarks that everyone quotes, compute them.

A file a repository, with its `REPOSITORY` and `LOSSES` by the names of `tests.authors.ours`.
"""
