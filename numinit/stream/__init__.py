"""Words to values: pure scalar functions, the same source for every engine.

Arithmetic is confined to correctly rounded operations (+, -, *, /, sqrt, fma), and no product
feeds a sum except through an explicit `fma` (or as a `product`), so that no compiler can contract it
differently.

Each transform takes a pair of words and the law's parameters `p`, a tuple of float64, and returns
a pair of values: two neighbouring elements (2j and 2j + 1), or the two parts of a complex one. The
float64 form takes 64-bit words.
"""
