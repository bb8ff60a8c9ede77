"""How checkpoints store quantised weights, a ``quant_method`` a file."""
