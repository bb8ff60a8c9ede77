"""How fast models open and convert, and in how much memory, beside the tools that people use.

Every measurement has a process of its own; contenders take turns, so that a machine that slows
down slows all of them; results are ratios, with their spread. `cases.CASES` says what is measured.
"""
