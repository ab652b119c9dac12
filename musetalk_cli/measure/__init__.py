"""Figures taken from outside: stage times, rates, the trace, the GPU's use."""
