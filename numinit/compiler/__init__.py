"""How scalar functions and kernels are compiled and cached: the only compiler settings.

`inline` marks scalar functions and needs no Numba. Numba is imported late, with the first kernel,
because that takes 0.5 s.
"""
