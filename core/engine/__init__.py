"""The only place that moves weight bytes: reads them, writes them, loads them."""
