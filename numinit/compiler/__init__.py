"""The only compiler settings: how scalar functions and kernels are compiled and cached.

`inline` marks scalar functions and needs no Numba. Numba is imported late, with the first kernel
that must be made: that takes 0.5 s.
"""
