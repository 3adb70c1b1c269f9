"""Tests of what ties the library to other frameworks."""
