"""What is measured: a module for each library, a function for each way of using it.

A function takes the source and a scratch directory. A `Call`'s function imports its library and
returns what is timed; a `Command`'s function returns the command lines that are timed together.
"""
