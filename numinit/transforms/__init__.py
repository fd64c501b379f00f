"""Words to values: pure scalar functions, the same source for every engine.

Arithmetic is confined to correctly rounded operations (+, -, *, /, sqrt, fma), and no product
feeds a sum except through an explicit `fma`, so that no compiler can contract it differently.

Each transform takes a pair of neighbouring words (those of elements 2j and 2j + 1) and four
parameters, and returns the pair of values. The float64 form takes 64-bit words.
"""
