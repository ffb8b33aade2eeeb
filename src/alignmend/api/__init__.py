"""Whole jobs in Python, as the command line has them: restore, evaluate, judge, compare, gate, report, train."""
